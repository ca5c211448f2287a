"""Makes the golden requests with the messages that Envoy publishes. Run by hand, not by tests.

They come from PyPI's xds-protos (1.85.0 when these were made), which cannot share an environment
with the server: it overwrites files of googleapis-common-protos, and its messages have the names
of ours. Install it into a folder of its own:

    pip install --no-deps --target build/xds-protos xds-protos
    PYTHONPATH=build/xds-protos python tests/server/rpc/golden/make.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envoy.service.auth.v3 import external_auth_pb2 as authz
from envoy.service.ext_proc.v3 import external_processor_pb2 as proc

FOLDER = Path(__file__).parent
LOAD = b'{"lora":"0.safetensors","strength":1.0}'
GENERATE = b'{"prompt":"a boat"}'
BUFFERED, STREAMED = 2, 1


def write(name: str, message: Any) -> None:
    (FOLDER / f"{name}.binpb").write_bytes(message.SerializeToString(deterministic=True))


def declared(body: bytes, more_bytes: int = 0) -> dict[str, str]:
    return {"content-type": "application/json", "content-length": str(len(body) + more_bytes)}


def pseudo(method: str, path: str) -> dict[str, str]:
    return {":authority": "images.example", ":method": method, ":path": path, ":scheme": "http"}


def check(
    name: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    raw: bool = False,
    size: int | None = None,
    extensions: Mapping[str, str] | None = None,
) -> None:
    """A CheckRequest; `raw` is what `pack_as_bytes` and `encode_raw_headers` make of it."""
    request = authz.CheckRequest()
    attributes = request.attributes
    attributes.source.address.socket_address.address = "10.1.2.3"
    attributes.source.address.socket_address.port_value = 40112
    attributes.source.principal = "spiffe://cluster.local/ns/web/sa/front"
    attributes.destination.address.socket_address.address = "10.1.2.9"
    attributes.destination.address.socket_address.port_value = 8000
    attributes.request.time.seconds = 1790000000
    attributes.context_extensions.update(extensions or {})
    attributes.metadata_context.filter_metadata["envoy.filters.http.jwt"].update({"sub": "me"})
    http = attributes.request.http
    http.id, http.method, http.path = "13359530607844510314", method, path
    http.host, http.scheme, http.protocol = "images.example", "http", "HTTP/1.1"
    http.size = len(body) if size is None else size
    for key, value in {**pseudo(method, path), "user-agent": "curl/8.5.0", **headers}.items():
        if raw:
            http.header_map.headers.add(key=key, raw_value=value.encode())
        else:
            http.headers[key] = value
    if raw:
        http.raw_body = body
    else:
        http.body = body.decode()
    write(name, request)


def headers(method: str, path: str, more: Mapping[str, str], *, end: bool) -> Any:
    found = proc.HttpHeaders(end_of_stream=end)
    for key, value in {**pseudo(method, path), **more}.items():
        found.headers.headers.add(key=key, raw_value=value.encode())
    return found


def main() -> None:
    check("load", "POST", "/load?trace=1", declared(LOAD), LOAD)
    check("load_raw_header_map", "POST", "/load", declared(LOAD), LOAD, raw=True)
    route = {"x-loragate-extractor": "other"}
    check("load_per_route_extractor", "POST", "/load", declared(LOAD), LOAD, extensions=route)
    check("generate_without_adapter", "POST", "/generate", declared(GENERATE), GENERATE)
    check("get_without_body", "GET", "/health", {})
    cut = {**declared(LOAD, 50), "x-envoy-auth-partial-body": "true"}
    check("partial_body", "POST", "/load", cut, LOAD)
    check("filter_without_body", "POST", "/load", declared(LOAD), size=0)
    check("chunked_without_body", "POST", "/load", {"transfer-encoding": "chunked"}, size=-1)
    check("shorter_than_declared", "POST", "/load", declared(LOAD, 9), LOAD)

    mode = proc.ProtocolConfiguration(request_body_mode=BUFFERED)
    streamed = proc.ProtocolConfiguration(request_body_mode=STREAMED)
    forged = {**declared(LOAD), "x-loragate-verdict": "ALLOW"}
    first = headers("POST", "/load", forged, end=False)
    write("proc_headers", proc.ProcessingRequest(request_headers=first, protocol_config=mode))
    first = headers("POST", "/load", declared(LOAD), end=False)
    write(
        "proc_headers_streamed",
        proc.ProcessingRequest(request_headers=first, protocol_config=streamed),
    )
    first = headers("GET", "/health", {}, end=True)
    write("proc_headers_get", proc.ProcessingRequest(request_headers=first, protocol_config=mode))
    body = proc.HttpBody(body=LOAD, end_of_stream=True)
    write("proc_body", proc.ProcessingRequest(request_body=body))


if __name__ == "__main__":
    main()
