#!/usr/bin/env bash
# Creates .venv and installs the three distributions into it, editable.
#
#   scripts/setup.sh            what the demo and the server need
#   scripts/setup.sh dev        the above, and what tests, linters and training need
#
# A second run with nothing changed ends at once. PYTHON names another interpreter than
# python3.11; VERBOSE=1 shows what pip does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${1:-runtime}
case $profile in
    runtime | dev) ;;
    *) echo "setup: unknown profile '$profile'; use runtime or dev." >&2; exit 2 ;;
esac

python=${PYTHON:-python3.11}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: '$python' is missing or older than Python 3.11." >&2
    echo "setup: install Python 3.11, or name another one: PYTHON=/path/to/python3.12 make ..." >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "setup: '$python' cannot make virtual environments; on Debian: apt-get install python3.11-venv" >&2
    exit 1
fi

fingerprint() { # of everything that decides what .venv holds
    {
        echo "$1"; pwd
        "$python" -c 'import sys; print(sys.version)'
        cat constraints.txt requirements-dev.txt scripts/setup.sh {client,kernels,server}/pyproject.toml
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}
wanted=$(fingerprint "$profile")
stamp=.venv/loragate-$profile.stamp
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit 0; fi

if [[ ! -x .venv/bin/python ]]; then
    echo "setup: creating .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

quiet=(--quiet --quiet) # once would still warn about every index that lacks a package
if [[ -n ${VERBOSE:-} ]]; then quiet=(); fi
pip_install() {
    env -u PYTHONPATH -u PIP_TARGET -u PIP_PREFIX \
        .venv/bin/python -m pip install "${quiet[@]+"${quiet[@]}"}" \
        --disable-pip-version-check --constraint constraints.txt "$@"
}
step() { printf 'setup: %-58s' "$1"; started=$SECONDS; }
finish() { printf ' %3d s\n' $((SECONDS - started)); }

step "[1/3] torch (about 200 MB, once)"
pip_install torch
finish
step "[2/3] loragate, loragate-kernels, loragate-server"
pip_install --editable client --editable kernels --editable 'server[postgres]'
finish
if [[ $profile == dev ]]; then
    step "[3/3] tests, linters, training"
    pip_install --requirement requirements-dev.txt
    finish
    fingerprint runtime > .venv/loragate-runtime.stamp
else
    echo "setup: [3/3] tests, linters, training: not wanted"
fi
echo "$wanted" > "$stamp"
