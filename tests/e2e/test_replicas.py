"""Two servers on one real PostgreSQL: one load, and parts of it that stand still or end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.resilience.replicas import (
    Replicas,
    end_one,
    replicas,
    share,
    stop_database,
    stop_one,
)
from testkit.postgres import PostgresMissingError, postgres_server

pytestmark = pytest.mark.needs("initdb")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    try:
        with (
            postgres_server() as postgres,
            replicas(tmp_path_factory.mktemp("replicas"), postgres) as both,
        ):
            yield both
    except PostgresMissingError as error:
        pytest.skip(str(error))


def test_a_replica_audits_a_digest_once_and_knows_what_the_other_decided(
    running: Replicas,
) -> None:
    shared = share(running, digests=12, times=8)
    assert shared.calls == 96
    assert shared.undecided == []
    assert shared.digests == 12
    assert shared.most_audits == 1
    assert min(shared.audits) > 0
    assert shared.strangers == []
    assert shared.unlisted == []


def test_a_replica_that_stands_still_allows_nothing_and_comes_back(running: Replicas) -> None:
    stood = stop_one(running, still_s=2.0)
    assert stood.without_decision["DEADLINE_EXCEEDED"] > 0
    # A question whose turn would come after its deadline is not let into the queue.
    assert set(stood.without_decision) <= {"DEADLINE_EXCEEDED", "QUEUE_FULL"}
    assert stood.open_without_decision == []
    assert stood.missing == []


def test_a_database_that_stands_still_allows_nothing_and_comes_back(running: Replicas) -> None:
    stood = stop_database(running, still_s=0.5)
    assert stood.without_decision["DATABASE_UNAVAILABLE"] > 0
    assert stood.open_without_decision == []
    assert stood.missing == []


def test_callers_are_served_or_refused_while_one_of_two_replicas_ends(running: Replicas) -> None:
    undecided = end_one(running)
    assert all(one.refused for one in undecided)
    assert {one.verdict for one in undecided} <= {"BLOCK"}
    written = {one.request_id for log in running.written() for one in log}
    assert not written & {one.request_id for one in undecided}
