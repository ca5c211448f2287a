"""Stopping, crashing, replicas, in longer rounds: `python -m benchmarks.resilience`.

Real server processes are asked by many callers of the SDK while they are told to stop, killed,
made to stand still, or lose their database. A round in which a call is lost, or in which a caller
got an ALLOW that no decision log holds, ends the benchmark with an error.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.report import write
from benchmarks.resilience.replicas import (
    Shared,
    StoodStill,
    end_one,
    replicas,
    share,
    stop_database,
    stop_one,
)
from benchmarks.resilience.stops import Crashed, Drained, crash, drain
from testkit.postgres import postgres_server


def require(holds: bool, what: str, found: object) -> None:
    """Ends the benchmark when a promise is broken.

    Raises:
        RuntimeError: it is.
    """
    if not holds:
        raise RuntimeError(f"{what}: {found}")


def drain_rounds(rounds: int) -> dict[str, object]:
    """SIGTERM under load, again and again."""
    done: list[Drained] = []
    for number in track(range(rounds), description="drains"):
        with tempfile.TemporaryDirectory() as folder:
            one = drain(Path(folder), callers=32, slow_every=16 + 8 * (number % 3), warm_up=60)
        require(not one.lost, "calls were lost", one.lost)
        require(not one.refused_but_written, "refused after the work", one.refused_but_written)
        require(one.exit_status == 0, "exit status", one.exit_status)
        done.append(one)
    reasons = sum((Counter(one.refused) for one in done), Counter[str]())
    return {
        "drains": rounds,
        "drain_calls": sum(one.calls for one in done),
        "drain_decided": sum(one.decided for one in done),
        "drain_decided_after_the_signal": sum(one.late for one in done),
        "drain_refused_draining": reasons["DRAINING"],
        "drain_refused_no_connection": reasons["no connection"],
        "drain_refused_while_closing": reasons["closing"],
        "drain_lost": 0,
        "drain_median_s": statistics.median(one.drain_s for one in done),
        "drain_longest_s": max(one.drain_s for one in done),
    }


def crash_rounds(kills: int) -> dict[str, object]:
    """SIGKILL under load, every second time with a torn line."""
    with tempfile.TemporaryDirectory() as folder:
        done: Crashed = crash(Path(folder), kills=kills, callers=32, decisions_each=150)
    require(not done.missing, "allowed, but in no log", done.missing)
    require(not done.unreadable, "allowed, but not found again", done.unreadable)
    require(not done.open_without_decision, "allowed for no reason", done.open_without_decision)
    require(not done.unexpected, "neither decided nor refused", done.unexpected)
    return {
        "kills": done.kills,
        "kill_calls": done.calls,
        "kill_allow_answers_compared": done.allowed,
        "kill_allow_answers_missing": 0,
        "kill_torn_lines_set_aside": done.torn_lines,
        "kill_median_s_until_next_decision": statistics.median(done.down_s),
        "kill_log": done.verified,
    }


def replica_rounds(digests: int) -> dict[str, object]:
    """Two replicas on one PostgreSQL."""
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server() as postgres,
        replicas(Path(folder), postgres) as running,
    ):
        shared = share(running, digests=digests, times=20, callers=32)
        still = stop_one(running, still_s=5)
        database = stop_database(running, still_s=3)
        unanswered = end_one(running, callers=16)
    require(not shared.undecided, "no decision", shared.undecided)
    require(shared.most_audits == 1, "a replica audited a digest again", shared.most_audits)
    require(not shared.strangers, "not the same at the other replica", shared.strangers)
    require(not shared.unlisted, "not listed by every replica", shared.unlisted)
    for stood in (still, database):
        require(not stood.missing, "allowed, but in no log", stood.missing)
        require(not stood.open_without_decision, "allowed for no reason", stood)
    others = [one for one in unanswered if not one.refused or one.verdict != "BLOCK"]
    require(not others, "neither decided nor refused", others)
    return {
        **_shared(shared),
        **_stood("replica_stopped", still),
        **_stood("database_stopped", database),
        "replica_ended_calls_refused": len(unanswered),
    }


def _shared(shared: Shared) -> dict[str, object]:
    return {
        "shared_calls": shared.calls,
        "shared_digests": shared.digests,
        "shared_audits_by_replica": " + ".join(map(str, shared.audits)),
        "shared_most_audits_of_a_digest_by_a_replica": shared.most_audits,
        "shared_answered_from_cache": shared.cached,
    }


def _stood(name: str, stood: StoodStill) -> dict[str, object]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in stood.without_decision.items())
    return {
        f"{name}_calls": stood.calls,
        f"{name}_allow_answers_compared": stood.allowed,
        f"{name}_allow_answers_missing": len(stood.missing),
        f"{name}_without_decision": reasons,
        f"{name}_s_until_both_decide": stood.back_s,
    }


def main(
    drains: Annotated[int, typer.Option(help="Servers told to stop.")] = 3,
    kills: Annotated[int, typer.Option(help="Servers killed.")] = 6,
    digests: Annotated[int, typer.Option(help="Files that two replicas are asked about.")] = 60,
) -> None:
    """Runs all rounds and writes the result."""
    result = {**drain_rounds(drains), **crash_rounds(kills), **replica_rounds(digests)}
    write("resilience", result, _table(list(result.items())))


def _table(rows: Sequence[tuple[str, object]]) -> str:
    lines = ["| measure | value |", "|---|---|"]
    for name, value in rows:
        lines.append(f"| {name} | {f'{value:.4g}' if isinstance(value, float) else value} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
