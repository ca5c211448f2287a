"""How a relayed WebSocket ends: for whom, by which code, and in which words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.intercept.extraction import Denial
from loragate_server.relay.observer import Cause

_MAX_REASON_BYTES = 123
"""RFC 6455: a close frame has 125 bytes, of which two are the code."""
_UNAVAILABLE = 503
_NEVER_SENT = frozenset({1004, 1005, 1006, 1015})


@dataclass(frozen=True)
class Ending:
    """What both sides are told.

    Attributes:
        code: for the client.
        reason: for the client.
        upstream_code: for the image server.
        upstream_reason: for the image server.
    """

    cause: Cause
    code: int = CloseCode.NORMAL_CLOSURE
    reason: str = ""
    upstream_code: int = CloseCode.GOING_AWAY
    upstream_reason: str = ""


def refused(outcome: CheckOutcome, denial: Denial) -> Ending:
    """Of a message that did not pass: the problem's code, the decision, and the sentence."""
    unavailable = denial.status == _UNAVAILABLE
    code, sentence = _told(denial.body)
    decision = f" decision {outcome.decision_id}" if outcome.decision_id else ""
    return Ending(
        Cause.NO_DECISION if unavailable else Cause.REFUSED,
        CloseCode.TRY_AGAIN_LATER if unavailable else CloseCode.POLICY_VIOLATION,
        cut(f"{code or outcome.result.value}{decision}: {sentence}"),
    )


def by_client(error: ConnectionClosed) -> Ending:
    """The client's connection has ended: the image server is told what the client said."""
    if error.sent is not None and not error.rcvd_then_sent:
        slow = "keepalive" in error.sent.reason
        return Ending(Cause.SLOW if slow else Cause.BROKEN, error.sent.code, error.sent.reason)
    if error.rcvd is None:
        return Ending(Cause.CLIENT)
    code = _sendable(error.rcvd.code, CloseCode.NORMAL_CLOSURE)
    return Ending(Cause.CLIENT, upstream_code=code, upstream_reason=error.rcvd.reason)


def by_upstream(error: ConnectionClosed) -> Ending:
    """The image server's connection has ended: the client is told what it said, or that it went."""
    if error.rcvd is not None and (error.sent is None or error.rcvd_then_sent):
        code = _sendable(error.rcvd.code, CloseCode.NORMAL_CLOSURE)
        return Ending(Cause.UPSTREAM, code, cut(error.rcvd.reason))
    if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
        return Ending(
            Cause.BROKEN,
            CloseCode.MESSAGE_TOO_BIG,
            "reply_too_large: the image server's message is over the relay's max_reply_bytes",
        )
    return Ending(
        Cause.UPSTREAM,
        CloseCode.BAD_GATEWAY,
        "upstream_gone: the image server ended the connection without a word; see its log",
    )


def slow(who: str, what: str) -> Ending:
    """Of a peer that took too long."""
    return Ending(
        Cause.SLOW, CloseCode.POLICY_VIOLATION, cut(f"peer_slow: the {who} took too long {what}")
    )


def idle(seconds: float) -> Ending:
    """Of a connection in which nobody says anything."""
    return Ending(
        Cause.IDLE, CloseCode.GOING_AWAY, f"idle: nothing was said for {seconds:g} seconds"
    )


TOO_MANY_FRAGMENTS = Ending(
    Cause.BROKEN, CloseCode.MESSAGE_TOO_BIG, "message_fragments: send the message in fewer frames"
)

STOPPING = Ending(Cause.STOPPING, CloseCode.GOING_AWAY, "stopping: connect again")

FAILED = Ending(
    Cause.FAILED, CloseCode.INTERNAL_ERROR, "relay_failed: see the log of loragate-server"
)


def cut(reason: str) -> str:
    """A reason as long as a close frame can hold."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def _sendable(code: int, otherwise: int) -> int:
    return otherwise if code in _NEVER_SENT else code


def _told(body: bytes) -> tuple[str, str]:
    """Code and sentence of a denial, whichever image server's form it has."""
    try:
        document = json.loads(body)
    except ValueError:
        return "", ""
    inner = document.get("error", document)
    if isinstance(inner, str):
        inner = {**document, "message": inner}
    sentence = inner.get("message") or inner.get("detail") or ""
    code = inner.get("code") or inner.get("type") or document.get("code") or ""
    return str(code), str(sentence)
