"""Two servers on one PostgreSQL that share a load, and what happens when one part stands still."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resilience.load import QUICK, Answer, Load, Question, fresh_questions, resaved
from benchmarks.resilience.stops import ONE_THREAD
from benchmarks.resilience.written import Written, decisions
from loragate import AuditClient
from loragate_server.testing import ServerProcess
from testkit.postgres import PostgresServer
from testkit.servers import forked_server

PAGE = 100
STILL_TIMEOUT_S = 1.5
"""Deadline of callers while a part stands still."""


@dataclass(frozen=True)
class Replicas:
    """Servers that share a database, each with a decision log of its own."""

    servers: Sequence[ServerProcess]
    postgres: PostgresServer

    @property
    def target(self) -> str:
        """For clients that spread their calls over all."""
        return "ipv4:" + ",".join(server.grpc for server in self.servers)

    def written(self) -> list[list[Written]]:
        """The decisions in the log of each."""
        return [decisions(server.log.with_name("decisions.jsonl")) for server in self.servers]


@dataclass(frozen=True)
class Shared:
    """What callers got from replicas that share one load.

    Attributes:
        audits: for each replica, how often it audited each digest.
        most_audits: the most that one replica did for one digest.
        strangers: decisions of one replica that another does not find or tells otherwise.
        unlisted: decisions that a replica does not list.
    """

    calls: int
    undecided: Sequence[Answer]
    digests: int
    audits: Sequence[int]
    most_audits: int
    cached: int
    strangers: Sequence[str]
    unlisted: Sequence[str]


@dataclass(frozen=True)
class StoodStill:
    """What callers got while a part stood still, and after it.

    Attributes:
        without_decision: answers without one, by reason; the SDK turned each into a BLOCK.
        open_without_decision: answers that said ALLOW all the same.
        missing: answers that said ALLOW and are in no log.
        back_s: from the part's return until a fresh question was decided by each replica.
    """

    calls: int
    allowed: int
    without_decision: Mapping[str, int]
    open_without_decision: Sequence[Answer]
    missing: Sequence[Answer]
    back_s: float


@contextmanager
def replicas(folder: Path, postgres: PostgresServer, count: int = 2) -> Iterator[Replicas]:
    """Starts `count` servers on one new database, at the same time."""
    settings = ONE_THREAD | {"LORAGATE_DATABASE_URL": postgres.new_database()}

    def start(
        number: int,
    ) -> tuple[contextlib.AbstractContextManager[ServerProcess], ServerProcess]:
        state = folder / f"replica-{number}"
        state.mkdir()
        manager = forked_server(state, settings)
        return manager, manager.__enter__()

    with ExitStack() as stack:
        with ThreadPoolExecutor(count) as pool:
            started = list(pool.map(start, range(count)))
        for manager, _ in started:
            stack.push(manager)
        yield Replicas([server for _, server in started], postgres)


def share(running: Replicas, *, digests: int, times: int, callers: int = 16) -> Shared:
    """Asks about each of so many files so often, in any order, through client-side balancing."""
    files = [resaved(QUICK, number) for number in range(digests)]
    questions = [Question(data) for data in files] * times
    random.shuffle(questions)
    with Load(running.target, questions, callers=callers) as load:
        load.join()
    written = running.written()
    counts = [Counter(one.subject for one in log) for log in written]
    ids = {one.decision_id for log in written for one in log}
    return Shared(
        calls=len(load.answers),
        undecided=[one for one in load.answers if not one.decided],
        digests=len(set(counts[0]).union(*counts[1:])),
        audits=[count.total() for count in counts],
        most_audits=max(max(count.values(), default=0) for count in counts),
        cached=sum(one.cached for one in load.answers),
        strangers=_strangers(running, written),
        unlisted=sorted(ids - set.intersection(*map(_listed, running.servers))),
    )


def stop_one(running: Replicas, *, still_s: float, callers: int = 8) -> StoodStill:
    """SIGSTOP to the first replica under load, SIGCONT after `still_s`."""
    pid = running.servers[0].pid

    def stand_still(_: Load) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(still_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    return _stand_still(running, stand_still, callers)


def stop_database(running: Replicas, *, still_s: float, callers: int = 8) -> StoodStill:
    """Stops PostgreSQL as a crash would, under load, until somebody has heard of it."""

    def stand_still(load: Load) -> None:
        running.postgres.stop()
        try:
            time.sleep(still_s)
            load.wait_for_reason("DATABASE_UNAVAILABLE")
        finally:
            running.postgres.start()

    return _stand_still(running, stand_still, callers)


def end_one(running: Replicas, *, callers: int = 8) -> Sequence[Answer]:
    """SIGTERM to the first replica under load; the answers that brought no decision.

    The SDK asks the other replica by itself when one refuses because it drains; where many calls
    fail at once, gRPC's throttle of retries lets some of the refusals through.
    """
    with Load(running.target, fresh_questions(), callers=callers) as load:
        load.wait_for_decisions(callers)
        os.kill(running.servers[0].pid, signal.SIGTERM)
        running.servers[0].wait()
        load.wait_for_decisions(callers)
    return [one for one in load.answers if not one.decided]


def _stand_still(
    running: Replicas, stand_still: Callable[[Load], None], callers: int
) -> StoodStill:
    with Load(
        running.target, fresh_questions(), callers=callers, timeout_s=STILL_TIMEOUT_S
    ) as load:
        load.wait_for_decisions(callers)
        stand_still(load)
        back_s = _until_each_decides(running)
        load.wait_for_decisions(callers)
    allowed = [one for one in load.answers if one.verdict == "ALLOW"]
    written = {
        one.decision_id for log in running.written() for one in log if one.verdict == "ALLOW"
    }
    undecided = [one for one in load.answers if not one.decided]
    return StoodStill(
        calls=len(load.answers),
        allowed=len(allowed),
        without_decision=Counter(one.reason or one.code for one in undecided),
        open_without_decision=[one for one in undecided if one.verdict == "ALLOW"],
        missing=[one for one in allowed if one.decision_id not in written],
        back_s=back_s,
    )


def _until_each_decides(running: Replicas) -> float:
    """Seconds until every replica has decided a question of its own."""
    began_s = time.monotonic()
    for server in running.servers:
        with Load(server.grpc, _other_questions(), callers=1, timeout_s=STILL_TIMEOUT_S) as load:
            load.wait_for_decisions(1)
    return time.monotonic() - began_s


def _other_questions() -> Iterator[Question]:
    """Questions that no other load asks, without end."""
    data = QUICK.read_bytes()
    while True:
        yield Question(data, random.uniform(0.8, 0.9))


def _strangers(running: Replicas, written: Sequence[Sequence[Written]]) -> list[str]:
    """Asks each replica for the decisions of the others."""
    found = []
    for server in running.servers:
        own = server.log.with_name("decisions.jsonl")
        ids = {one.decision_id for one in decisions(own)}
        with AuditClient(server.grpc, on_unavailable="raise") as client:
            for one in (one for log in written for one in log if one.decision_id not in ids):
                there = client.get(one.decision_id)
                digests = [adapter.sha256 for adapter in there.adapters]
                if (there.verdict.name, digests) != (one.verdict, [sha for sha, _ in one.subject]):
                    found.append(one.decision_id)
    return found


def _listed(server: ServerProcess) -> set[str]:
    with AuditClient(server.grpc, on_unavailable="raise") as client:
        return {one.decision_id for one in client.list(page_size=PAGE)}
