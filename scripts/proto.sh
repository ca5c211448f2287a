#!/usr/bin/env bash
# Generates the Python stubs in client/loragate/v1 and server/loragate_server/rpc/envoy, and copies
# the service config to the client.
#
#   scripts/proto.sh           write them
#   scripts/proto.sh --check   write nothing; fail when the committed ones differ, when the style
#                              is wrong, or when callers of the committed image would break
#   scripts/proto.sh --image   also accept the present .proto files as the base of `buf breaking`
#
# Generated code refuses to run under a runtime older than its generator, so the generator is the
# oldest one that the SDK supports. 1.72.1 emits code of protobuf 6, which protobuf promises to
# run under 6 and 7; older generators emit protobuf 5 or 4, for which no such promise holds.
# The minimum versions in client/pyproject.toml follow from this number.
set -euo pipefail

GRPCIO_TOOLS=1.72.1

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/build/proto-venv
buf=$root/build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf
mode=${1:-write}
case $mode in write | --check | --image) ;; *) echo "usage: $0 [--check|--image]" >&2; exit 2 ;; esac

if [ "$(cat "$venv/installed" 2>/dev/null)" != "$GRPCIO_TOOLS" ]; then
    echo "Installing grpcio-tools $GRPCIO_TOOLS into build/proto-venv" >&2
    rm -rf "$venv"
    "${PYTHON:-python3.11}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        "grpcio-tools==$GRPCIO_TOOLS" "setuptools<81"
    echo "$GRPCIO_TOOLS" >"$venv/installed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root/proto"
"$venv/bin/python" -W ignore -m grpc_tools.protoc -I . \
    --python_out="$work" --pyi_out="$work" loragate/v1/*.proto
# Only files with a service: for the others the plugin writes a module without content.
mapfile -t services < <(grep -l '^service ' loragate/v1/*.proto)
"$venv/bin/python" -W ignore -m grpc_tools.protoc -I . --grpc_python_out="$work" "${services[@]}"
cp loragate/v1/audit_grpc_service_config.json "$work/loragate/v1/"
# Envoy's own messages, as far as the server speaks them; it registers their methods by hand.
"$venv/bin/python" -W ignore -m grpc_tools.protoc -I . \
    --python_out="$work" --pyi_out="$work" loragate_server/rpc/envoy/*.proto

cd "$root"
target=client/loragate/v1
envoy=server/loragate_server/rpc/envoy
if [ "$mode" = --check ]; then
    differs() { ! diff -ru --exclude=__pycache__ --exclude=__init__.py "$1" "$2"; }
    if differs "$work/loragate/v1" "$target" \
        || differs "$work/loragate_server/rpc/envoy" "$envoy"; then
        echo "The committed stubs are stale: run 'make proto' and commit the result." >&2
        exit 1
    fi
    echo "The stubs are fresh."
    if [ ! -x "$buf" ]; then
        echo "buf is missing, so style and compatibility go unchecked;" \
            "scripts/install_test_tools.sh installs it." >&2
        exit 0
    fi
    "$buf" lint proto
    "$buf" breaking proto --against proto/buf.image.binpb
    echo "proto/ is clean and compatible with proto/buf.image.binpb."
    exit 0
fi

find "$target" "$envoy" -name '*_pb2*' -not -path '*/__pycache__/*' -delete
cp "$work"/loragate/v1/* "$target/"
cp "$work"/loragate_server/rpc/envoy/* "$envoy/"
written=$(find "$target" "$envoy" -name '*_pb2*' -not -path '*/__pycache__/*' | wc -l)
echo "Wrote $written stubs to $target and $envoy"

if [ "$mode" = --image ]; then
    "$buf" build proto -o proto/buf.image.binpb
    echo "Wrote proto/buf.image.binpb"
fi
