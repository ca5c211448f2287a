"""What the gRPC front tells whoever counts; free of gRPC, so that counting does not load it."""

from __future__ import annotations


class CallObserver:
    """Told of every call, and does nothing about it: subclasses count.

    Calls come from the event loop and must not block.
    """

    def call_started(self, method: str) -> None:
        """A call of "/package.Service/Method" arrived; the method may be unknown."""

    def call_handled(self, method: str, code: str, seconds: float, request_id: str = "") -> None:
        """A call ended with the gRPC status name `code`."""
