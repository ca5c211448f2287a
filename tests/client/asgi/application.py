"""An application behind the middleware, and a request to it."""

from __future__ import annotations

import json
from typing import Any

from loragate.testing import FakeAuditServer


class App:
    """An application that reads its body and remembers what it was given."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"picture"})


async def ask(
    app: Any,
    body: Any = b"",
    *,
    path: str = "/generate",
    chunks: int = 1,
    headers: dict[str, str] | None = None,
    again: tuple[tuple[str, str], ...] = (),
    **scope: Any,
) -> tuple[int, Any]:
    """Status and body of the answer, JSON read. The headers of `again` come behind the others."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = max(1, -(-len(data) // chunks))
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"content-length": str(len(data))} | (headers or {})
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in (*named.items(), *again)]
    request = {"type": "http", "method": "POST", "path": path, "headers": encoded} | scope
    await app(request, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    is_json = (b"content-type", b"application/json") in sent[0]["headers"]
    return sent[0]["status"], json.loads(answer) if is_json else answer


def asked(fake: FakeAuditServer) -> list[tuple[str, float | None]]:
    return [
        (one.path or one.uri, one.denoiser_strength if one.HasField("denoiser_strength") else None)
        for one in fake.calls[-1].request.adapters
    ]
