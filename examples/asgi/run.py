"""A guarded HTTP server.

    python examples/asgi/run.py

Starts a loragate server, and behind the middleware an application of a few lines that says what it
would load. Sends it requests as a client would, and prints the answers. With FastAPI the
application is added to in the same way: app.add_middleware(LoragateMiddleware, routes=...).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from loragate import AsyncAuditClient, AuditResult
from loragate.integrations.asgi import GuardedRequest, LoragateMiddleware
from loragate_server.testing import server_process

ADAPTERS = Path(__file__).parents[1] / "adapters"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the LoRA that it was told to load."""
    body = json.loads((await receive())["body"])
    answer = f"{scope['path']} draws with {body.get('lora_path', 'no LoRA')}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})


async def post(app: Any, body: bytes) -> tuple[int, str]:
    """One POST to /generate, in this process."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": "/generate", "headers": []}, receive, send)
    return sent[0]["status"], sent[1]["body"].decode()


async def serve(target: str, folder: Path) -> list[int]:
    """Sends a few requests; returns their statuses."""

    def rewrite(request: GuardedRequest, result: AuditResult) -> bytes:
        """Names the audited bytes by their digest, so that a changed file is not loaded."""
        return json.dumps(request.json | {"lora_path": result.adapters[0].sha256}).encode()

    async with AsyncAuditClient(target) as client:
        app = LoragateMiddleware(
            application, routes={"/generate": None}, client=client, rewrite=rewrite
        )
        statuses = []
        for body in (
            b'{"prompt": "a watermelon"}',
            b'{"lora_path": "%s/harmless-watermelon.safetensors"}' % bytes(folder),
            b'{"lora_path": "%s/learned-bomb.safetensors", "lora_scale": 1.0}' % bytes(folder),
            b'{"lora_path": "/etc/passwd"}',
            b'{"lora_path": "%s/a", "lora_path": "b"}' % bytes(folder),
        ):
            status, answer = await post(app, body)
            statuses.append(status)
            print(f"{body.decode()}\n  {status} {answer}")
    return statuses


def main() -> int:
    """Runs the example; returns 0 when the answers are as they should be."""
    with tempfile.TemporaryDirectory() as place:
        state, folder = Path(place, "state"), Path(place, "loras")
        state.mkdir()
        shutil.copytree(ADAPTERS, folder)
        with server_process(state, {"LORAGATE_INTAKE__ROOTS": json.dumps([str(folder)])}) as server:
            statuses = asyncio.run(serve(server.grpc, folder))
    return 0 if statuses == [200, 200, 403, 403, 400] else 1


if __name__ == "__main__":
    sys.exit(main())
