"""The open inference protocol over gRPC: its methods, which are paths, and what is read of them."""

from __future__ import annotations

from loragate_server.intercept.reading.bodies import check_whole, content_coding
from loragate_server.intercept.refusals import ambiguous_body, door_closed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route

SERVICE = "inference.GRPCInferenceService"
LOAD, INFER, STREAM = "grpc", "grpc_infer", "grpc_stream"

GRPC_ROUTES: tuple[Route, ...] = (
    # Any service: MLServer has a second one that loads, and others rename theirs.
    route(LOAD, "*/RepositoryModelLoad"),
    route(INFER, "*/ModelInfer"),
    route(STREAM, "*/ModelStreamInfer"),
)

_MANAGEMENT = "inference.model_repository.ModelRepositoryService"
GRPC_PASSED: tuple[str, ...] = (
    *(
        f"POST /{SERVICE}/{method}"
        for method in (
            *("ServerLive", "ServerReady", "ServerMetadata"),
            *("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"),
            *("RepositoryIndex", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
            *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister"),
            *("SystemSharedMemoryUnregister", "CudaSharedMemoryStatus"),
            *("CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
        )
    ),
    f"POST /{_MANAGEMENT}/RepositoryIndex",
    f"POST /{_MANAGEMENT}/RepositoryModelUnload",
    "POST /grpc.health.v1.Health/Check",
    "POST /grpc.health.v1.Health/Watch",
)
"""They tell of the server, or take models and memory away."""


def is_stream(hit: Hit | None, request: HttpRequest) -> bool:
    """Whether a request opens a stream of inferences."""
    opens = hit is not None and hit.route.name == STREAM
    return opens and request.method == "POST" and is_grpc(request)


def refuse_stream(name: str) -> None:
    """A stream of inferences goes on after a proxy has asked about its opening.

    Raises:
        RefusedRequestError: DOOR_CLOSED for the name of the route that streams.
    """
    if name == STREAM:
        raise door_closed(
            "ModelStreamInfer goes on sending after it was let in, so its requests cannot be read.",
            "Send each request with ModelInfer, or have Envoy show each message to ext_proc.",
        )


def is_grpc(request: HttpRequest) -> bool:
    """Whether a request says that its body is gRPC with messages of protobuf."""
    kind = request.header("content-type").split(";")[0].strip().lower()
    return kind in ("application/grpc", "application/grpc+proto")


def grpc_message(request: HttpRequest) -> tuple[bytes, str]:
    """The framed message and how it is compressed.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE or BODY_AMBIGUOUS.
    """
    check_whole(request)
    if not is_grpc(request):
        raise ambiguous_body("The body is no gRPC.", "Send application/grpc.")
    if content_coding(request) != "identity":
        raise ambiguous_body("The gRPC body is compressed.", "Use grpc-encoding.")
    return request.body, request.header("grpc-encoding")
