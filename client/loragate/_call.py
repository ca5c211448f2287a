"""One call to the service: what is sent, how its answer is read, and how often it is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from loragate._service_config import RetryPolicy
from loragate.errors import ADAPTER_NOT_STORED, AuditError, Internal
from loragate.fail_open import is_unavailability

T = TypeVar("T")


def _raise(error: AuditError) -> NoReturn:
    raise error


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call, ready to be sent.

    Attributes:
        operation: what the user called, for messages.
        method: full name, for example "loragate.v1.AuditService/Audit".
        request: makes the message, or the stream of messages, anew for every attempt.
        parse: makes a result of the answer, or of one message of a stream of answers.
        settle: gives a result in spite of an error, or raises the error.
        resend: retries made by the SDK, where gRPC must not or cannot make them itself.
        with_bytes: what to send where the service does not hold the bytes that this call names
            by their digest.
        known: the result, where it is known without a call.
        metadata: what every attempt sends along, beside the token and the trace.
    """

    operation: str
    method: str
    request: Callable[[], Any]
    parse: Callable[[Any], T]
    timeout_s: float
    settle: Callable[[AuditError], T] = _raise
    resend: RetryPolicy | None = None
    with_bytes: Call[T] | None = None
    known: T | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Short name of the method, for example "Audit"."""
        return self.method.rpartition("/")[2]

    def read(self, answer: Any) -> T:
        """Reads an answer, which may hold anything.

        Raises:
            AuditError: it is not what was asked for, or cannot be read.
        """
        try:
            if answer is None:  # what gRPC makes of bytes that are no message
                raise ValueError("it is no message of the protocol")
            return self.parse(answer)
        except AuditError as error:
            return self.settle(error)
        except (ValueError, ArithmeticError) as error:
            return self.settle(
                Internal(
                    f"The answer cannot be read: {error}.",
                    operation=self.operation,
                    remedy="Load nothing; find out what stands between this client and the "
                    "service.",
                )
            )


class Attempts(Generic[T]):
    """Counts the attempts of one call and keeps its deadline over all of them.

    Attributes:
        call: what to send next.
    """

    def __init__(self, call: Call[T]) -> None:
        self.call = call
        self._deadline_s = time.monotonic() + call.timeout_s
        self._made = 0
        self._refusal: AuditError | None = None

    def begin(self) -> float:
        """Counts an attempt; returns the seconds that are left for it."""
        self._made += 1
        return max(self._deadline_s - time.monotonic(), 0.001)

    def pause_after(self, error: AuditError) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if error.reason == ADAPTER_NOT_STORED and self.call.with_bytes is not None:
            self.call, self._made = self.call.with_bytes, 0
            return 0.0
        if not is_unavailability(error, sources_elsewhere=False):
            self._refusal = error
        policy = self.call.resend
        if policy is None or error.code not in policy.codes or self._made >= policy.max_attempts:
            return None
        pause = max(policy.pause_s(self._made), error.retry_after_s or 0.0)
        return pause if time.monotonic() + pause < self._deadline_s else None

    def settle(self, error: AuditError) -> T:
        """The result in spite of the last error, or raises an error.

        The service that refused and was asked again was there: a deadline that passes on the way
        does not make it unavailable.
        """
        late = error.code == "DEADLINE_EXCEEDED"
        return self.call.settle(self._refusal if late and self._refusal else error)
