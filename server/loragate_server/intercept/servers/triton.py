"""Triton Inference Server: models loaded over HTTP and gRPC, with files in the request."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.reading.bodies import (
    check_whole,
    parse_json,
    read_object,
)
from loragate_server.intercept.reading.findings import Findings, Found
from loragate_server.intercept.refusals import (
    ambiguous_adapter,
    ambiguous_body,
    door_closed,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.grpc_routes import (
    GRPC_PASSED,
    GRPC_ROUTES,
    INFER,
    LOAD,
    SERVICE,
    grpc_message,
)
from loragate_server.intercept.servers.kserve import KServe, infer_findings
from loragate_server.intercept.servers.kserve_parameters import adapters_in, together
from loragate_server.intercept.servers.triton_wire import read_load_request

_FILE = "file:"
_CONFIG = "config"


@dataclass(frozen=True, kw_only=True)
class Triton(KServe):
    """Settings and extractor of Triton Inference Server, whose inferences speak KServe's protocol.

    Attributes:
        allowed_file_suffixes: files that may come beside weights without an audit.
    """

    kind: ClassVar[str] = "triton"
    routes: ClassVar[tuple[Route, ...]] = (
        *GRPC_ROUTES,
        route("load", "models/*/load"),
        route("infer", "models/*/infer"),
        route("infer", "models/*/generate"),
        route("infer", "models/*/generate_stream"),
        route("infer", "versions/*/infer"),
        route("infer", "versions/*/generate"),
        route("infer", "versions/*/generate_stream"),
    )
    passed: ClassVar[tuple[str, ...]] = (
        *GRPC_PASSED,
        "POST /v2/repository/index",
        "POST /v2/repository/*/index",
        "POST /v2/repository/models/*/unload",
        "POST /v2/repository/*/models/*/unload",
        "POST /v2/systemsharedmemory/**",
        "POST /v2/cudasharedmemory/**",
        "POST /v2/trace/setting",
        "POST /v2/models/*/trace/setting",
        "POST /v2/logging",
    )

    adapter_file: str = "1/adapter.safetensors"
    allowed_file_suffixes: tuple[str, ...] = (".pbtxt", ".txt")

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name == "infer":
            return self.find_in_inference(request)
        if hit.route.name == INFER:
            return infer_findings(request, self.limits, hub_ids=self.hub_ids)
        if hit.route.name == LOAD:
            if hit.captured[0] != SERVICE:
                raise door_closed(
                    "Another service than Triton's loads models.",
                    "Use the extractor kserve for it.",
                )
            parameters, model = read_load_request(*grpc_message(request), self.limits)
        else:
            parameters, model = self._from_http(request), hit.captured[0]
        found_files = tuple(self._in_parameters(parameters))
        if not any(name.startswith(_FILE) for name in parameters):
            found_files += self.in_repository(model)
        return Findings(together(found_files))

    def _from_http(self, request: HttpRequest) -> dict[str, Any]:
        check_whole(request)
        if not request.body.strip():
            return {}
        _, body = read_object(request, self.limits)
        parameters = body.get("parameters", {})
        if not isinstance(parameters, dict):
            raise ambiguous_body("The parameters are no object.", "Send parameters: {...}.")
        return {
            name: _decoded(value, place_of("parameters", name)) if name.startswith(_FILE) else value
            for name, value in parameters.items()
        }

    def _in_parameters(self, parameters: dict[str, Any]) -> Iterator[Found]:
        for name, value in parameters.items():
            place = place_of("parameters", name)
            if name.startswith(_FILE):
                yield from self._in_file(name, value, place)
            elif name == _CONFIG:
                text = value if isinstance(value, str) else ""
                config = parse_json(text, self.limits, "The configuration").value
                for one in adapters_in(config, (), hub_ids=self.hub_ids, wide=True):
                    yield Found(one.reference, f"{place}{one.place}")
            else:
                yield from adapters_in({name: value}, ("parameters",), hub_ids=self.hub_ids)

    def _in_file(self, name: str, value: Any, place: str) -> Iterator[Found]:
        lowered = name.lower()
        if not isinstance(value, bytes):
            raise unnamed(place, "holds no bytes.", "Send the content of the file.")
        if lowered.endswith("adapter_config.json"):
            raise ambiguous_adapter(
                place,
                "changes what the weights mean, which an audit of sent bytes cannot take in.",
                "Put alpha and rank into the header of the safetensors file.",
            )
        if lowered.endswith(".safetensors"):
            yield Found(AdapterReference(inline_bytes=value), place)
        elif not lowered.endswith(self.allowed_file_suffixes):
            raise door_closed(
                f"{place} is a file that is not audited.",
                "Send safetensors, or name its suffix in allowed_file_suffixes.",
            )


def _decoded(value: Any, place: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError) as error:
        raise unnamed(place, "is no valid base64.", "Send the file in base64.") from error
