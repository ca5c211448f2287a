"""A server that is told to stop, and one that is killed, both with many callers waiting."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.resilience.load import Answer, Load, fresh_questions
from benchmarks.resilience.written import Written, decisions, notes, tear, verify
from loragate import AuditClient, Verdict
from loragate_server.testing import server_process

CERTAINLY_INSIDE_S = 0.5
"""A question asked so long before the signal has reached the server."""

ONE_THREAD = {"LORAGATE_THREADS": "1"}


@dataclass(frozen=True)
class Drained:
    """What callers got from a server that was told to stop.

    Attributes:
        late: decisions answered after the signal.
        refused: number of calls by the reason that they were given.
        lost: calls that were neither decided nor refused, or turned away although they were inside.
        refused_but_written: calls that were refused, and whose decision is in the log.
        drain_s: from the signal to the end of the process.
        exit_status: of the process.
    """

    calls: int
    decided: int
    late: int
    refused: Mapping[str, int]
    lost: Sequence[Answer]
    refused_but_written: Sequence[Written]
    drain_s: float
    exit_status: int


def drain(
    folder: Path,
    *,
    callers: int = 16,
    slow_every: int = 12,
    warm_up: int = 40,
    settings: Mapping[str, str] | None = None,
) -> Drained:
    """SIGTERM to a server that `callers` ask at the same time, and go on asking."""
    with (
        server_process(folder, ONE_THREAD | dict(settings or {})) as server,
        Load(server.grpc, fresh_questions(slow_every=slow_every), callers=callers) as load,
    ):
        load.wait_for_decisions(warm_up)
        told_s = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        exit_status = server.wait()
        drain_s = time.monotonic() - told_s
    answers = load.answers
    refused = [answer for answer in answers if answer.refused]
    turned_away = {answer.request_id for answer in refused}
    inside = [one for one in refused if one.asked_s < told_s - CERTAINLY_INSIDE_S]
    return Drained(
        calls=len(answers),
        decided=load.decided,
        late=sum(one.decided and one.answered_s > told_s for one in answers),
        refused=Counter(_why(one) for one in refused),
        lost=[one for one in answers if not (one.decided or one.refused)] + inside,
        refused_but_written=[
            one for one in decisions(folder / "decisions.jsonl") if one.request_id in turned_away
        ],
        drain_s=drain_s,
        exit_status=exit_status,
    )


def _why(answer: Answer) -> str:
    if answer.cut_off:
        return "closing"
    return answer.reason or "no connection"


@dataclass
class Crashed:
    """What callers got from a server that was killed and started again, several times.

    Attributes:
        kills: how often.
        allowed: answers that said ALLOW.
        missing: of these, the ones that the decision log does not have.
        unreadable: of these, the ones that the last server cannot find.
        unexpected: answers that were neither decided nor refused.
        open_without_decision: answers without a decision that still said ALLOW.
        torn_lines: lines that a server found torn and set aside.
        down_s: for each kill, from it to the next decision.
        verified: what `log verify` said at the end.
    """

    kills: int = 0
    calls: int = 0
    allowed: int = 0
    missing: list[Answer] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unexpected: list[Answer] = field(default_factory=list)
    open_without_decision: list[Answer] = field(default_factory=list)
    torn_lines: int = 0
    down_s: list[float] = field(default_factory=list)
    verified: str = ""


def crash(
    folder: Path,
    *,
    kills: int,
    callers: int = 16,
    decisions_each: int = 60,
    torn_every: int = 2,
) -> Crashed:
    """SIGKILL to a server under load, and a new one on the same folder, `kills` times.

    Args:
        folder: state of every one of the servers.
        kills: how many servers are killed; one more is left to end in order.
        callers: that ask at the same time.
        decisions_each: how many are answered before each kill.
        torn_every: after one kill in so many, the log ends in a torn line.
    """
    result = Crashed()
    log = folder / "decisions.jsonl"
    address = f"127.0.0.1:{free_port()}"
    settings = ONE_THREAD | {"LORAGATE_LISTEN__GRPC": address}
    killed_s = 0.0
    with Load(address, fresh_questions(), callers=callers) as load:
        for _ in range(kills):
            with server_process(folder, settings) as server:
                _wait_until_back(load, killed_s, result)
                load.wait_for_decisions(decisions_each)
                time.sleep(random.uniform(0, 0.05))
                os.kill(server.pid, signal.SIGKILL)
                killed_s = time.monotonic()
                server.wait()
            result.kills += 1
            if result.kills % torn_every == 0:
                tear(log)
        with server_process(folder, settings):
            _wait_until_back(load, killed_s, result)
            load.wait_for_decisions(decisions_each)
            result.unreadable = _unreadable(address, load.answers)
    _compare(result, load.answers, log)
    return result


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_back(load: Load, killed_s: float, result: Crashed) -> None:
    load.wait_for_decisions(1)
    if killed_s:
        first_s = min(
            one.answered_s for one in load.answers if one.decided and one.asked_s > killed_s
        )
        result.down_s.append(first_s - killed_s)


def _unreadable(address: str, answers: Sequence[Answer]) -> list[str]:
    """Ids that callers were allowed by and that the server does not know."""
    with AuditClient(address, on_unavailable="raise") as client:
        known = {one.decision_id for one in client.list(verdict=Verdict.ALLOW, page_size=100)}
    allowed = {one.decision_id for one in answers if one.verdict == "ALLOW"}
    return sorted(allowed - known)


def _compare(result: Crashed, answers: Sequence[Answer], log: Path) -> None:
    written = {one.decision_id for one in decisions(log) if one.verdict == "ALLOW"}
    allowed = [one for one in answers if one.verdict == "ALLOW"]
    result.calls = len(answers)
    result.allowed = len(allowed)
    result.missing = [one for one in allowed if one.decision_id not in written]
    result.open_without_decision = [one for one in allowed if not one.decided]
    result.unexpected = [one for one in answers if not (one.decided or one.refused)]
    result.torn_lines = notes(log).count("torn_line_set_aside")
    result.verified = verify(log)
