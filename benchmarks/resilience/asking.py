"""Questions over the wire without the SDK, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.report import quantile
from loragate.v1 import audit_pb2, audit_pb2_grpc

DEADLINE_S = 10.0
REFUSALS = ("QUEUE_FULL", "BYTE_BUDGET_EXHAUSTED")


def copy_of(data: bytes, name: str) -> bytes:
    """The same weights in a file with another digest; costs next to nothing to make."""
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size]) | {"__metadata__": {"copy": name}}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def token_settings(names: Iterable[str]) -> dict[str, str]:
    """Settings of a server that knows callers by these names, which are their tokens too."""
    tokens = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]
    return {"LORAGATE_TOKENS": json.dumps(tokens)}


@dataclass
class Answers:
    """What one caller got.

    Attributes:
        decided_s: seconds until each decision.
        decided_at_s: when each came, by `time.monotonic`.
        refused_s: seconds until each refusal for want of room.
        others: everything else, by reason.
    """

    decided_s: list[float] = field(default_factory=list)
    decided_at_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        """All questions."""
        return len(self.decided_s) + len(self.refused_s) + self.others.total()

    def p99_ms(self, seconds: Sequence[float]) -> float:
        """The 99th percentile in milliseconds; 0 of nothing."""
        return 1000 * quantile(list(seconds), 0.99) if seconds else 0.0


class Asker:
    """One caller with a connection of its own."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.stub: Any = audit_pb2_grpc.AuditServiceStub(channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.answers = Answers()

    async def ask(self, data: bytes, deadline_s: float = DEADLINE_S) -> str:
        """Asks about a file that comes with the question; returns the verdict or the reason."""
        reference = audit_pb2.AdapterReference(inline_bytes=data)
        return await self._ask(reference, deadline_s)

    async def ask_again(self, sha256: str, deadline_s: float = DEADLINE_S) -> str:
        """Asks about a file that the server has."""
        return await self._ask(audit_pb2.AdapterReference(stored_sha256=sha256), deadline_s)

    async def _ask(self, reference: audit_pb2.AdapterReference, deadline_s: float) -> str:
        request = audit_pb2.AuditRequest(adapters=[reference])
        began = time.monotonic()
        try:
            answer = await self.stub.Audit(request, timeout=deadline_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            if reason in REFUSALS:
                self.answers.refused_s.append(time.monotonic() - began)
            else:
                self.answers.others[reason] += 1
            return reason
        self.answers.decided_at_s.append(time.monotonic())
        self.answers.decided_s.append(time.monotonic() - began)
        return audit_pb2.VerdictKind.Name(answer.verdict.verdict)

    async def offer(self, files: Iterable[bytes], per_s: float, seconds: float) -> None:
        """Asks at a steady rate, whatever becomes of the questions, and waits for all answers."""
        began, asked = time.monotonic(), []
        for number, data in enumerate(files):
            due_s = began + number / per_s
            if due_s > began + seconds:
                break
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            asked.append(asyncio.create_task(self.ask(data)))
        await asyncio.gather(*asked)

    async def keep_asking(self, files: Iterable[bytes], seconds: float) -> None:
        """Asks one question after the other."""
        end_s = time.monotonic() + seconds
        for data in files:
            if time.monotonic() > end_s:
                return
            await self.ask(data)


@asynccontextmanager
async def asker(address: str, token: str = "") -> AsyncIterator[Asker]:
    """A caller, known by a token if the server knows any."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Asker(channel, token)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The service's reason, else the name of the status."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details and status.details[0].Unpack(info):
        return str(info.reason)
    return str(error.code().name)
