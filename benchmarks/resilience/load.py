"""Many callers that ask real questions through the SDK without pause, and keep every answer."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import safe_open
from safetensors.numpy import save

from loragate import AuditClient, AuditError, AuditResult

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
QUICK = ADAPTERS / "harmless-watermelon.safetensors"
"""An adapter whose audit ends at the screen, within hundredths of a second."""
SLOW = ADAPTERS / "learned-jack-o-lantern.safetensors"
"""An adapter that goes through every stage, which takes seconds."""

REFUSED_PAUSE_S = 0.2
PATIENCE_S = 120.0
"""How long to wait for something that takes a moment before it counts as failed."""


@dataclass(frozen=True)
class Question:
    """One adapter at one strength."""

    data: bytes
    strength: float = 1.0


@dataclass(frozen=True)
class Answer:
    """What a caller got. Times are those of `time.monotonic`.

    Attributes:
        decision_id: empty when the service gave no decision.
        code, reason, message: of the error instead of a decision.
    """

    request_id: str
    verdict: str
    asked_s: float
    answered_s: float
    decision_id: str = ""
    cached: bool = False
    code: str = ""
    reason: str = ""
    message: str = ""

    @property
    def decided(self) -> bool:
        """Whether there is a decision."""
        return bool(self.decision_id)

    @property
    def refused(self) -> bool:
        """Whether the service was not there, or said that it takes nothing now."""
        return self.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") or self.cut_off

    @property
    def cut_off(self) -> bool:
        """Whether the server closed while the call was on its way, before anybody looked at it."""
        return self.code == "CANCELLED" and not self.reason


def resaved(file: Path, number: int) -> bytes:
    """The same weights in a file with another digest."""
    with safe_open(file, framework="np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata() or {})
    return save(tensors, {**metadata, "copy": str(number)})


def fresh_questions(*, slow_every: int = 0) -> Iterator[Question]:
    """Questions that no cache can answer, without end.

    Args:
        slow_every: one in so many takes seconds; 0 for none.
    """
    quick, slow = QUICK.read_bytes(), SLOW.read_bytes()
    for number in itertools.count(1):
        data = slow if slow_every and number % slow_every == 0 else quick
        yield Question(data, 0.5 + number / 1e6)


class Load:
    """Callers, each in a thread, that ask from entering the block until it is left.

    They fail closed as any user of the SDK does: without a decision they get BLOCK. Questions
    alternate between `audit` and `watch`.
    """

    def __init__(
        self,
        target: str,
        questions: Iterable[Question],
        *,
        callers: int = 16,
        timeout_s: float = 60.0,
    ) -> None:
        """Prepares; the questions go to whoever asks next, and callers end with them."""
        self._client = AuditClient(target, timeout=timeout_s, service="load")
        self._longest_s = timeout_s + PATIENCE_S
        self._questions = enumerate(questions)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._answers: list[Answer] = []
        self._threads = [
            threading.Thread(target=self._ask_on, name=f"caller-{number}", daemon=True)
            for number in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        end_s = time.monotonic() + self._longest_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        self._client.close()
        if hanging := [thread.name for thread in self._threads if thread.is_alive()]:
            raise RuntimeError(f"{hanging} have no answer long after their time was over")

    def join(self) -> None:
        """Waits until every question is answered."""
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answer]:
        """What was answered so far."""
        with self._lock:
            return list(self._answers)

    @property
    def decided(self) -> int:
        """How many of the answers are decisions."""
        return sum(answer.decided for answer in self.answers)

    def wait_for_decisions(self, count: int) -> None:
        """Waits until `count` more decisions have been answered.

        Raises:
            RuntimeError: they did not come within `PATIENCE_S`.
        """
        self._wait_for(count, "decisions", lambda answer: answer.decided)

    def wait_for_reason(self, reason: str) -> None:
        """Waits until one more answer gives this reason for bringing no decision.

        Raises:
            RuntimeError: it did not come within `PATIENCE_S`.
        """
        self._wait_for(1, reason, lambda answer: answer.reason == reason)

    def _wait_for(self, count: int, what: str, is_one: Callable[[Answer], bool]) -> None:
        seen = len(self.answers)
        end_s = time.monotonic() + PATIENCE_S
        while sum(map(is_one, self.answers[seen:])) < count:
            if time.monotonic() > end_s:
                last = self.answers[-1:]
                raise RuntimeError(f"{count} {what} did not come; the last answer: {last}")
            time.sleep(0.01)

    def _ask_on(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                numbered = next(self._questions, None)
            if numbered is None:
                return
            answer = self._ask(*numbered)
            with self._lock:
                self._answers.append(answer)
            if not answer.decided:
                self._stopped.wait(REFUSED_PAUSE_S)

    def _ask(self, number: int, question: Question) -> Answer:
        request_id = uuid.uuid4().hex
        asked_s = time.monotonic()
        try:
            if number % 2:
                options = {"strength": question.strength, "request_id": request_id}
                *_, last = self._client.watch(question.data, **options)  # type: ignore[arg-type]
                assert isinstance(last, AuditResult)
                result = last
            else:
                result = self._client.audit(
                    question.data, strength=question.strength, request_id=request_id
                )
        except AuditError as error:
            return _without_decision(request_id, asked_s, "none", error)
        if result.cause is not None:
            return _without_decision(request_id, asked_s, result.verdict.name, result.cause)
        return Answer(
            request_id,
            result.verdict.name,
            asked_s,
            time.monotonic(),
            decision_id=result.decision_id,
            cached=result.cached,
        )


def _without_decision(request_id: str, asked_s: float, verdict: str, error: AuditError) -> Answer:
    return Answer(
        request_id,
        verdict,
        asked_s,
        time.monotonic(),
        code=error.code,
        reason=error.reason,
        message=error.message,
    )
