"""Two replicas on one PostgreSQL, one of which is killed again and again, at any moment.

    python -m benchmarks.resilience.kills --kills 100

ends with an error when a caller got an ALLOW that no log holds, when logs and database differ
after a replica has come back, or when a log is not the one whose checkpoints were handed out: each
keeps a tree of tiles, and gives a signed checkpoint away five times a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.resilience.load import Answer, Load, fresh_questions
from benchmarks.resilience.stops import ONE_THREAD, free_port
from benchmarks.resilience.written import decisions, tear, verify
from loragate_server.record.database import Database
from loragate_server.record.reconcile import Difference, reconcile
from loragate_server.testing import ServerProcess
from testkit.checkpoints import make_key
from testkit.postgres import PostgresServer, postgres_server
from testkit.servers import forked_server

_DATABASE_TIMEOUT_S = 30.0


@dataclass
class ReplicasKilled:
    """What callers got from two replicas, of which one or the other was killed.

    Attributes:
        kills: how often; each time the replica came back before the next.
        missing: answers that said ALLOW and that are in no log.
        open_without_decision: answers without a decision that said ALLOW all the same.
        different: decisions that are not the same in logs and database.
        unfinished: lines of the logs that nobody was answered with, as notes say at the end.
        torn: how often the killed log was given a torn end as well.
        verified: what `log verify` said of each log at the end.
    """

    kills: int = 0
    calls: int = 0
    allowed: int = 0
    missing: list[Answer] = field(default_factory=list)
    open_without_decision: list[Answer] = field(default_factory=list)
    different: list[Difference] = field(default_factory=list)
    unfinished: int = 0
    torn: int = 0
    verified: list[str] = field(default_factory=list)


class _Replica:
    """A server that comes back on the same port and the same folder."""

    def __init__(self, state: Path, settings: Mapping[str, str]) -> None:
        state.mkdir()
        key, self._public = make_key(state, "log-key")
        self._handed_out = state.with_name(f"{state.name}-checkpoints")
        self._handed_out.mkdir()
        own = {
            "LORAGATE_CHECKPOINTS__ENABLED": "true",
            "LORAGATE_CHECKPOINTS__INTERVAL_S": "0.2",
            "LORAGATE_CHECKPOINTS__KEY": json.dumps({"id": key.id, "file": str(key.file)}),
            "LORAGATE_CHECKPOINTS__COPIES": json.dumps([str(self._handed_out)]),
        }
        self.log = state / "decisions.jsonl"
        self.address = f"127.0.0.1:{free_port()}"
        self._state = state
        self._settings = {**settings, **own, "LORAGATE_LISTEN__GRPC": self.address}
        self._running = ExitStack()
        self._server: ServerProcess | None = None

    def start(self) -> None:
        self._server = self._running.enter_context(forked_server(self._state, self._settings))

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._running.close()

    def stop(self) -> None:
        self._running.close()

    def verify(self) -> str:
        """What `log verify` says of its log and tree, held against what was handed out.

        Raises:
            RuntimeError: they are not intact, or nothing was handed out.
        """
        if not any(self._handed_out.iterdir()):
            raise RuntimeError(f"no checkpoint of {self.log} was handed out")
        tree = f"{self.log}.tree"
        handed_out, key = str(self._handed_out), str(self._public)
        return verify(self.log, "--tree", tree, "--checkpoint", handed_out, "--key", key)


def kill_replicas(
    folder: Path,
    postgres: PostgresServer,
    *,
    kills: int,
    callers: int = 8,
    longest_s: float = 1.0,
    torn_every: int = 3,
    reconcile_every: int = 1,
    going: Callable[[range], Iterable[int]] = iter,
) -> ReplicasKilled:
    """SIGKILL to either replica under load, at random moments.

    Args:
        folder: for the state of both.
        postgres: a server that both write to.
        kills: how often.
        callers: that ask at the same time, through client-side balancing.
        longest_s: a kill comes so long after the replica's return at the latest.
        torn_every: after one kill in so many, the log ends in a torn line.
        reconcile_every: after one return in so many, logs and database are compared as a whole.
        going: goes through the numbers of the kills, and may show how far that is.
    """
    result = ReplicasKilled()
    url = postgres.new_database()
    settings = ONE_THREAD | {"LORAGATE_DATABASE_URL": url}
    both = [_Replica(folder / f"replica-{number}", settings) for number in range(2)]
    database = Database(url, _DATABASE_TIMEOUT_S)
    try:
        for one in both:
            one.start()
        target = "ipv4:" + ",".join(one.address for one in both)
        with Load(target, fresh_questions(), callers=callers) as load:
            load.wait_for_decisions(callers)
            for number in going(range(1, kills + 1)):
                _kill_one(random.choice(both), load, longest_s, torn=number % torn_every == 0)
                result.kills += 1
                result.torn += number % torn_every == 0
                if number % reconcile_every == 0:
                    result.different += reconcile(database, [one.log for one in both]).differences
        answers = load.answers
    finally:
        for one in both:
            one.stop()
    last = reconcile(database, [one.log for one in both])
    result.different += last.differences
    result.unfinished = last.not_answered
    database.close()
    _compare(result, answers, both)
    return result


def _kill_one(replica: _Replica, load: Load, longest_s: float, *, torn: bool) -> None:
    load.wait_for_decisions(1)
    time.sleep(random.uniform(0, longest_s))
    replica.kill()
    if torn and replica.log.stat().st_size:
        tear(replica.log)
    replica.start()


def _compare(result: ReplicasKilled, answers: Sequence[Answer], both: Sequence[_Replica]) -> None:
    logged = [decision for one in both for decision in decisions(one.log)]
    written = {one.decision_id for one in logged if one.verdict == "ALLOW"}
    allowed = [one for one in answers if one.verdict == "ALLOW"]
    result.calls = len(answers)
    result.allowed = len(allowed)
    result.missing = [one for one in allowed if one.decision_id not in written]
    result.open_without_decision = [one for one in allowed if not one.decided]
    result.verified = [one.verify() for one in both]


def main(
    kills: Annotated[int, typer.Option(help="How often one of the replicas is killed.")] = 20,
    callers: Annotated[int, typer.Option(help="That ask at the same time.")] = 4,
    reconcile_every: Annotated[
        int, typer.Option(help="Compare logs and database as a whole after so many kills.")
    ] = 10,
) -> None:
    """Kills replicas and prints what callers got."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as postgres:
        done = kill_replicas(
            Path(folder),
            postgres,
            kills=kills,
            callers=callers,
            reconcile_every=reconcile_every,
            going=lambda numbers: track(numbers, description="kills"),
        )
    broken: dict[str, Sequence[object]] = {
        "allowed, but in no log": done.missing,
        "allowed for no reason": done.open_without_decision,
        "not the same in log and database": done.different,
    }
    typer.echo(
        f"{done.kills} kills ({done.torn} with a torn line), {done.calls} calls, "
        f"{done.allowed} ALLOW compared, {done.unfinished} lines that nobody was answered with"
    )
    for what, found in broken.items():
        typer.echo(f"{what}: {len(found)}")
    for said in done.verified:
        typer.echo(said)
    if any(broken.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
