"""KServe and the open inference protocol: loads by name, and parameters that name adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import (
    BodyLimits,
    JsonText,
    check_whole,
    parse_json,
    plain_bytes,
    read_json,
)
from loragate_server.intercept.reading.findings import Findings, Found
from loragate_server.intercept.reading.references import in_folder
from loragate_server.intercept.refusals import (
    ambiguous_body,
    door_closed,
    unnamed,
    unreadable,
)
from loragate_server.intercept.request import HttpRequest, is_length
from loragate_server.intercept.routes import Hit, Route, find_route, route
from loragate_server.intercept.servers.grpc_routes import (
    GRPC_PASSED,
    GRPC_ROUTES,
    INFER,
    LOAD,
    grpc_message,
    is_stream,
    refuse_stream,
)
from loragate_server.intercept.servers.infer_wire import (
    framed,
    infer_message,
    read_infer_request,
    with_texts,
)
from loragate_server.intercept.servers.kserve_parameters import adapters_in, together

_HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, kw_only=True)
class KServe(ImageServer):
    """Settings and extractor of servers that speak KServe's protocols, version 1 and 2.

    Attributes:
        hub_ids: whether `owner/name` in a parameter is a repository on the hub.
        model_folder: where the server keeps models; a load by name is audited as `adapter_file`
            of the model in it. Empty refuses such loads.
        adapter_file: below the folder of a model.
        allow_repository_loads: lets loads by name pass without an audit.
    """

    kind: ClassVar[str] = "kserve"
    routes: ClassVar[tuple[Route, ...]] = (
        *GRPC_ROUTES,
        route("load", "models/*/load"),
        route("infer", "models/*/infer"),
        route("infer", "models/*/generate"),
        route("infer", "models/*/generate_stream"),
        route("infer", "models/*/infer_stream"),
        route("infer", "versions/*/infer"),
        route("infer", "versions/*/infer_stream"),
        route("infer", "versions/*/generate"),
        route("infer", "versions/*/generate_stream"),
        route("predict", "models/*"),
        route("infer", "images/*"),
        route("infer", "chat/completions"),
        route("infer", "completions"),
        route("infer", "embeddings"),
        route("infer", "rerank"),
    )
    passed: ClassVar[tuple[str, ...]] = (
        *GRPC_PASSED,
        "POST /v2/repository/index",
        "POST /v2/repository/models/*/unload",
    )

    hub_ids: bool = True
    model_folder: str = ""
    adapter_file: str = "adapter.safetensors"
    allow_repository_loads: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name == INFER:
            return infer_findings(request, self.limits, hub_ids=self.hub_ids)
        if hit.route.name == LOAD:
            if self.allow_repository_loads:
                return Findings()
            raise door_closed(
                "Models are loaded over gRPC without a file that could be audited.",
                "Load over HTTP, or set allow_repository_loads.",
            )
        if hit.route.name == "load":
            return self._load(hit.captured[0], request)
        return self.find_in_inference(request)

    def find_in_inference(self, request: HttpRequest) -> Findings:
        """The adapters that the parameters of an inference name."""
        document = inference_document(request, self.limits)
        found = together(list(adapters_in(document.value, (), hub_ids=self.hub_ids)))
        if request.header(_HEADER_LENGTH):  # a longer name would move the tensors behind it
            found = _without_spots(found)
        return Findings(found, document.text)

    def check_head(self, hit: Hit, request: HttpRequest) -> None:
        """See `ImageServer.check_head`."""
        refuse_stream(hit.route.name)

    def opens_stream(self, request: HttpRequest) -> bool:
        """See `ImageServer.opens_stream`."""
        return is_stream(find_route(request, self.guarded()), request)

    def find_message(self, request: HttpRequest) -> Findings:
        """See `ImageServer.find_message`."""
        return infer_findings(request, self.limits, hub_ids=self.hub_ids)

    def _load(self, model: str, request: HttpRequest) -> Findings:
        check_whole(request)
        found: list[Found] = []
        text = ""
        if request.body.strip():
            document = read_json(request, self.limits)
            text = document.text
            found = list(adapters_in(document.value, (), hub_ids=self.hub_ids, wide=True))
        # Servers that do not read parameters load what lies in the repository all the same.
        return Findings(together([*found, *self.in_repository(model)]), text)

    def in_repository(self, model: str) -> tuple[Found, ...]:
        """What a load by name takes from the folder of models."""
        if self.allow_repository_loads:
            return ()
        if not self.model_folder:
            raise unnamed(
                "The request",
                "loads what lies in the model repository.",
                "Set model_folder and adapter_file, or allow_repository_loads.",
            )
        reference = in_folder(f"{model}/{self.adapter_file}", self.model_folder, "The model")
        return (Found(reference, "path"),)

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the protocol has it."""
        return {"error": message, "code": code, "decision_id": decision_id}


def inference_document(request: HttpRequest, limits: BodyLimits) -> JsonText:
    """The JSON of an inference request, which binary tensors may follow.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE, BODY_AMBIGUOUS or BODY_UNREADABLE.
    """
    header = request.header(_HEADER_LENGTH).strip()
    if not header:
        return read_json(request, limits)
    # A server that undoes no coding finds no JSON: what gzip and zlib begin with is none.
    body = plain_bytes(request, limits)
    if not is_length(header) or int(header) > len(body):
        raise ambiguous_body("The length of the JSON part is wrong.", f"Send {_HEADER_LENGTH}.")
    try:
        text = body[: int(header)].decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable("The JSON part is not in UTF-8.", "Send UTF-8.") from error
    return parse_json(text, limits, "The JSON part")


def infer_findings(request: HttpRequest, limits: BodyLimits, *, hub_ids: bool) -> Findings:
    """The adapters of a `ModelInfer` over gRPC, found as in the same request over HTTP.

    Raises:
        RefusedRequestError: the message cannot be read, or carries an adapter as a tensor.
    """
    message = infer_message(*grpc_message(request), limits)
    document = read_infer_request(message)
    found = together(list(adapters_in(document, (), hub_ids=hub_ids)))
    return Findings(found, edit=lambda texts: framed(with_texts(message, texts)))


def _without_spots(found: tuple[Found, ...]) -> tuple[Found, ...]:
    return tuple(replace(one, spot=None, twins=()) for one in found)
