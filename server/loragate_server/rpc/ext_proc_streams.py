"""Streams of gRPC through Envoy: each message is sent on when it has been allowed, not before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import grpc

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.outcome import CheckSource
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest, Message
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from loragate_server.rpc.ext_proc_answers import PASSED_ON, Response, go_on, immediate, piece
from loragate_server.rpc.leash import call_leash

Request: TypeAlias = wire.ProcessingRequest

_PREFIX_BYTES = 5


async def carried(
    checkpoint: Checkpoint,
    opening: HttpRequest,
    source: CheckSource,
    later: AsyncIterator[Request],
    context: grpc.aio.ServicerContext,
) -> AsyncIterator[Response]:
    """The answers to all that Envoy shows of a stream, from its headers on.

    Args:
        checkpoint: is asked about the opening, and about each message.
        opening: the request without its body.
        source: the door.
        later: what Envoy shows after the headers.
        context: of the call, which ends when the client of the stream goes.
    """
    outcome = checkpoint.check_opening(opening, source)
    yield go_on(outcome) if outcome.allowed else immediate(outcome)
    if not outcome.allowed:
        return
    frames = Frames(checkpoint.settings.max_body_bytes)
    async for shown in later:
        kind = shown.WhichOneof("request") or "nothing"
        try:
            whole = frames.cut(kind, shown.request_body)
        except RefusedRequestError as error:
            yield immediate(checkpoint.refuse(source, error))
            return
        if kind != "request_body":
            yield PASSED_ON[kind]
            continue
        for frame in whole:
            message = replace(opening, body=frame, message=Message.GRPC)
            with call_leash(context, at_most_s=checkpoint.settings.stream_timeout_s) as leash:
                outcome = await checkpoint.check(message, source, leash)
            if not outcome.allowed:
                yield immediate(outcome)
                return
            yield piece(frame if outcome.body is None else outcome.body)
        if shown.request_body.end_of_stream:
            yield piece(b"", end=True)


@dataclass
class Frames:
    """Cuts what comes in pieces into the messages of gRPC, each with its prefix.

    Attributes:
        most_bytes: of one message.
    """

    most_bytes: int
    _held: bytearray = field(default_factory=bytearray)
    _ended: bool = False

    def cut(self, kind: str, body: wire.HttpBody) -> Iterator[bytes]:
        """The messages that are complete with one more piece, or with what comes in its place.

        Raises:
            RefusedRequestError: BODY_INCOMPLETE for a message that is too long or cut off, and for
                anything that does not belong into the body of a request.
        """
        if kind not in PASSED_ON or (kind == "request_body" and self._ended):
            raise _refused(f"In a stream came {kind} where it does not belong.")
        if kind == "request_body":
            self._held += body.body
            self._ended = body.end_of_stream
        else:
            self._ended = self._ended or kind == "request_trailers"
        whole = list(self._whole())
        if self._ended and self._held:
            raise _refused("The stream ends within a message.")
        return iter(whole)

    def _whole(self) -> Iterator[bytes]:
        at = 0
        while len(self._held) >= at + _PREFIX_BYTES:
            size = int.from_bytes(self._held[at + 1 : at + _PREFIX_BYTES], "big")
            if size > self.most_bytes:
                raise _refused(
                    f"A message of the stream has {size} bytes; {self.most_bytes} is the limit."
                )
            end = at + _PREFIX_BYTES + size
            if len(self._held) < end:
                break
            yield bytes(self._held[at:end])
            at = end
        del self._held[:at]


def _refused(fault: str) -> RefusedRequestError:
    return RefusedRequestError(
        RefusalCode.BODY_INCOMPLETE, fault, remedy="Send whole messages, and smaller ones."
    )
