"""What is over goes, archived and read again; what blocks, waits or is held stays."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from loragate_server.config.retention import RetentionSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Decision, Finding, Reason, Remedy, VerdictKind
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record import tables
from loragate_server.record.codec import encode, to_json
from loragate_server.record.database import Span
from loragate_server.record.known_book import KnownBook
from loragate_server.record.reconcile import reconcile
from loragate_server.record.recorder import Recorder
from loragate_server.record.retention.archive import Archive, ArchiveError
from loragate_server.record.retention.holds import (
    Hold,
    HoldError,
    all_holds,
    concepts_on_record,
    place,
    release,
)
from loragate_server.record.retention.pruner import Pruner, Tally
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.sketch_rows import SketchKey, read_sketches
from loragate_server.record.verdict import Caller, Verdict
from loragate_server.record.weights_book import WeightsBook
from testkit import evidence as made

LATER = datetime.now(UTC) + timedelta(days=100)
"""When what is recorded in a test is old."""

SHORT = RetentionSection(decisions="90d", evidence="30d", reviews="90d")

Record = Callable[[Decision], Verdict]


@pytest.fixture
def record(recorder: Recorder) -> Record:
    return lambda decision: recorder.record(decision, Caller("images"), stage_times_s={"read": 1.0})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"))


@pytest.fixture
def found(decision: Callable[..., Decision]) -> Callable[..., Decision]:
    """A decision in which the concept was suspected or found."""

    def make(kind: VerdictKind, sha256: str = "a" * 64) -> Decision:
        base = decision(kind, sha256s=(sha256,))
        evidence = replace(
            base.evidence,
            inconclusive=(),
            adapters=(made.adapter(sha256, weights_sha256="e" * 64, sketches=(b"\1" * 1024,)),),
        )
        [concept] = evidence.concepts
        reasons = (Reason("concept_learned", "It has learned 'Cat'."),)
        finding = Finding(concept, kind, Remedy.QUARANTINE)
        return replace(base, evidence=evidence, reasons=reasons, findings=(finding,))

    return make


def pruner(recorder: Recorder, archive: Archive, settings: RetentionSection = SHORT) -> Pruner:
    return Pruner(recorder.database, settings, archive, LATER)


def by_kind(tallies: list[Tally]) -> dict[str, Tally]:
    return {str(one.kind): one for one in tallies}


def archived(archive: Archive) -> list[dict]:
    lines = []
    for file in sorted(Path(archive.url).glob("*.jsonl.gz")):
        lines += [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    return lines


def test_as_it_ships_nothing_ever_goes(
    recorder: Recorder, record: Record, decision: Callable[..., Decision], archive: Archive
) -> None:
    one = record(decision())
    tallies = pruner(recorder, archive, RetentionSection()).prune()
    assert [(tally.before, tally.count) for tally in tallies] == [(None, 0)] * 3
    assert recorder.get(one.decision_id) == one


def test_a_plan_counts_and_takes_nothing_away(
    recorder: Recorder, record: Record, decision: Callable[..., Decision], archive: Archive
) -> None:
    one = record(decision())
    plan = by_kind(pruner(recorder, archive).plan())
    assert plan["decisions"].count == 1
    assert plan["decisions"].size_bytes == len(to_json(encode(one)))
    assert recorder.get(one.decision_id) == one
    assert not Path(archive.url).exists()


def test_old_decisions_go_and_lie_whole_in_the_archive(
    recorder: Recorder,
    record: Record,
    decision: Callable[..., Decision],
    archive: Archive,
    log_path: Path,
) -> None:
    ids = [record(decision()).decision_id for _ in range(3)]
    kept = [to_json(encode(recorder.get(one))) for one in ids]
    assert by_kind(pruner(recorder, archive).prune())["decisions"].count == 3
    with pytest.raises(NoDecisionError, match="was pruned on") as caught:
        recorder.get(ids[0])
    assert caught.value.reason is ErrorReason.DECISION_UNKNOWN
    assert archive.url in caught.value.remedy
    with pytest.raises(NoDecisionError, match="is recorded"):
        recorder.get("0" * 32)
    lines = archived(archive)
    assert [line["id"] for line in lines] == ids
    assert [to_json(line["payload"]) for line in lines] == kept
    after = reconcile(recorder.database, [log_path], settle=lambda: None)
    assert (after.pruned, after.differences) == (3, ())


def test_young_decisions_stay(
    recorder: Recorder, record: Record, decision: Callable[..., Decision], archive: Archive
) -> None:
    one = record(decision())
    now = datetime.now(UTC) + timedelta(days=29)
    Pruner(recorder.database, SHORT, archive, now).prune()
    assert recorder.get(one.decision_id) == one


def test_evidence_goes_before_the_decision_and_replay_passes_it_over(
    recorder: Recorder,
    record: Record,
    decision: Callable[..., Decision],
    archive: Archive,
    log_path: Path,
) -> None:
    one = record(decision())
    settings = RetentionSection(evidence="30d")
    pruned = by_kind(pruner(recorder, archive, settings).prune())
    assert (pruned["decisions"].count, pruned["evidence"].count) == (0, 1)
    left = recorder.get(one.decision_id)
    assert (left.decision.verdict, left.caller) == (one.decision.verdict, one.caller)
    assert left.decision.evidence.adapters == one.decision.evidence.adapters
    assert left.decision.evidence.concepts == ()
    assert left.decision.evidence.layers == ()
    assert (recorder.database.count(Span()), recorder.database.count_pruned(Span())) == (0, 1)
    assert [line["id"] for line in archived(archive)] == [one.decision_id]
    after = reconcile(recorder.database, [log_path])
    assert (after.thinned, after.differences) == (1, ())
    assert by_kind(pruner(recorder, archive, settings).prune())["evidence"].count == 0


def test_what_was_blocked_stays_blocked_after_everything_was_pruned(
    recorder: Recorder,
    record: Record,
    found: Callable[..., Decision],
    decision: Callable[..., Decision],
    archive: Archive,
) -> None:
    blocked = record(found(VerdictKind.BLOCK))
    harmless = record(decision(sha256s=("f" * 64,)))
    pruned = by_kind(pruner(recorder, archive).prune())
    assert pruned["decisions"].count == 1
    assert pruned["decisions"].kept["a block rests on them"] == 1
    with pytest.raises(NoDecisionError):
        recorder.get(harmless.decision_id)
    known = KnownBook(recorder.database)
    known.refresh()
    base = blocked.decision.evidence.base_digest
    ways = [(ReviewedAdapter(one * 64, "", 1.0, 1.0),) for one in "af"]
    [use] = known.about(ways, base)
    assert use.decision_id == blocked.decision_id
    assert recorder.get(use.decision_id).decision.verdict is VerdictKind.BLOCK
    weights = WeightsBook(recorder.database, lambda: frozenset({"a" * 64}))
    weights.refresh()
    assert weights.twins_of("9" * 64, "e" * 64) == ("a" * 64,)
    key = SketchKey(base, "a" * 64, "")
    with recorder.database.reading() as connection:
        assert read_sketches(connection, [key]) == {key: (b"\1" * 1024,)}


def test_a_rejection_outlives_the_decision_that_it_was_about(
    recorder: Recorder, record: Record, found: Callable[..., Decision], archive: Archive
) -> None:
    reviews = Reviews(recorder, ReviewRules(frozenset(), timedelta(days=30)), told=lambda _: None)
    suspected = record(found(VerdictKind.REVIEW))
    reviews.act(
        suspected.decision_id, ReviewAction.REJECT, reviewer="alice", reason="no", position=0
    )
    pruned = by_kind(pruner(recorder, archive).prune())
    assert (pruned["decisions"].count, pruned["reviews"].count) == (1, 0)
    book = ReviewBook(recorder.database)
    book.refresh()
    assert book.rejected == {"a" * 64}
    [ruling] = book.about(["a" * 64])
    assert not ruling.approved
    with recorder.database.reading() as connection:
        known = concepts_on_record(connection)
    assert known == {one.evidence.concept_id for one in suspected.decision.findings}


def test_an_approval_that_lapsed_long_ago_goes_after_its_decisions(
    recorder: Recorder, record: Record, found: Callable[..., Decision], archive: Archive
) -> None:
    reviews = Reviews(recorder, ReviewRules(frozenset(), timedelta(days=30)), told=lambda _: None)
    suspected = record(found(VerdictKind.REVIEW))
    end = datetime.now(UTC) + timedelta(days=1)
    reviews.act(
        suspected.decision_id, ReviewAction.APPROVE, reviewer="alice", reason="fine", position=0,
        expires_at=end,
    )  # fmt: skip
    book = ReviewBook(recorder.database)
    book.refresh()
    assert len(book.about(["a" * 64])) == 1
    pruned = by_kind(pruner(recorder, archive).prune())
    assert (pruned["decisions"].count, pruned["reviews"].count) == (1, 1)
    book.refresh()
    assert book.about(["a" * 64]) == ()


def test_a_review_that_goes_hides_none_that_comes_from_a_clock_that_is_behind(
    recorder: Recorder, record: Record, found: Callable[..., Decision], archive: Archive
) -> None:
    reviews = Reviews(recorder, ReviewRules(frozenset(), timedelta(days=30)), told=lambda _: None)

    def act(verdict: Verdict, action: ReviewAction, position: int) -> None:
        end = datetime.now(UTC) + timedelta(days=1) if action is ReviewAction.APPROVE else None
        reviews.act(
            verdict.decision_id, action, reviewer="alice", reason="so", position=position,
            expires_at=end,
        )  # fmt: skip

    old, other = record(found(VerdictKind.REVIEW)), record(found(VerdictKind.REVIEW, "b" * 64))
    act(old, ReviewAction.APPROVE, 0)
    act(other, ReviewAction.APPROVE, 0)
    with recorder.database.writing() as connection:  # its clock was ahead of all others
        connection.execute(
            text("UPDATE reviews SET review_id = :id WHERE subject_key = "
                 "(SELECT subject_key FROM audits WHERE decision_id = :d)"),
            {"id": "f" * 32, "d": other.decision_id},
        )  # fmt: skip
    book = ReviewBook(recorder.database)
    book.refresh()
    assert [one.approved for one in book.about(["b" * 64])] == [True]

    with recorder.database.writing() as connection:
        lapsed = connection.execute(text("SELECT min(review_id) FROM reviews")).scalar_one()
        connection.execute(text("DELETE FROM reviews WHERE review_id = :id"), {"id": lapsed})
        connection.execute(
            insert(tables.pruned).values(
                id=lapsed, kind="review", made_at=LATER, pruned_at=LATER, archive=""
            )
        )
    act(other, ReviewAction.REJECT, 1)
    book.refresh()
    assert [one.approved for one in book.about(["b" * 64])] == [False]


def test_what_cannot_be_read_is_not_taken_away_when_a_hold_comes_meanwhile(
    recorder: Recorder, record: Record, found: Callable[..., Decision], archive: Archive
) -> None:
    odd = record(found(VerdictKind.REVIEW, "b" * 64))
    record(found(VerdictKind.REVIEW, "b" * 64))  # of which the newest waits for a person
    with recorder.database.writing() as connection:
        connection.execute(
            text("UPDATE audits SET payload = :text WHERE decision_id = :id"),
            {"text": '{"decision": {}}', "id": odd.decision_id},
        )

    class Late(Archive):
        """While it writes, somebody places a hold."""

        def add_rows(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> str:
            with recorder.database.writing() as connection:
                place(connection, HOLDS[0], datetime.now(UTC))
            return super().add_rows(kind, rows)

    settings = RetentionSection(decisions="90d")
    assert by_kind(pruner(recorder, Late(archive.url), settings).prune())["decisions"].count == 0


def test_what_waits_for_a_reviewer_stays_whole(
    recorder: Recorder, record: Record, found: Callable[..., Decision], archive: Archive
) -> None:
    record(found(VerdictKind.REVIEW))
    newest = record(found(VerdictKind.REVIEW))
    pruned = by_kind(pruner(recorder, archive).prune())
    assert pruned["decisions"].count == 1
    assert pruned["decisions"].kept["a reviewer has to look at them"] == 1
    assert recorder.get(newest.decision_id) == newest


HOLDS = [
    Hold("file", "a letter from a court", sha256="a" * 64),
    Hold("concept", "the owner complains", concept="cat"),
    Hold("time", "an inquiry", since=datetime(2020, 1, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: hold.name)
def test_what_is_held_stays_whole_until_it_is_released(
    recorder: Recorder,
    record: Record,
    found: Callable[..., Decision],
    archive: Archive,
    hold: Hold,
) -> None:
    older = record(found(VerdictKind.REVIEW))
    record(found(VerdictKind.REVIEW))  # else the older one would wait for a reviewer
    with recorder.database.writing() as connection:
        place(connection, hold, datetime.now(UTC))
    plan = by_kind(pruner(recorder, archive).plan())
    assert plan["decisions"].held == {hold.name: 1}
    assert by_kind(pruner(recorder, archive).prune())["decisions"].count == 0
    assert recorder.get(older.decision_id) == older
    with recorder.database.writing() as connection:
        release(connection, hold.name, "the case is closed", datetime.now(UTC))
    assert by_kind(pruner(recorder, archive).prune())["decisions"].count == 1
    with recorder.database.reading() as connection:
        [listed] = all_holds(connection)
    assert (listed.hold, listed.release_reason) == (hold, "the case is closed")


def test_a_hold_of_something_else_holds_nothing(
    recorder: Recorder, record: Record, decision: Callable[..., Decision], archive: Archive
) -> None:
    record(decision())
    others = [
        Hold("file", "r", sha256="b" * 64),
        Hold("concept", "r", concept="cat"),  # measured, and neither suspected nor found
        Hold("time", "r", until=datetime(2020, 1, 1, tzinfo=UTC)),
    ]
    with recorder.database.writing() as connection:
        for hold in others:
            place(connection, hold, datetime.now(UTC))
    assert by_kind(pruner(recorder, archive).prune())["decisions"].count == 1


def test_a_hold_that_comes_while_the_archive_is_written_still_counts(
    recorder: Recorder, record: Record, decision: Callable[..., Decision], archive: Archive
) -> None:
    one = record(decision())

    class Slow(Archive):
        def add_rows(self, *arguments: object, **options: object) -> str:
            with recorder.database.writing() as connection:
                place(connection, HOLDS[0], datetime.now(UTC))
            return super().add_rows(*arguments, **options)  # type: ignore[arg-type]

    Pruner(recorder.database, SHORT, Slow(archive.url), LATER).prune()
    assert recorder.get(one.decision_id) == one


@pytest.mark.parametrize("how", ["no such folder", "no room"])
def test_nothing_goes_that_could_not_be_archived(
    recorder: Recorder,
    record: Record,
    decision: Callable[..., Decision],
    tmp_path: Path,
    how: str,
    request: pytest.FixtureRequest,
) -> None:
    one = record(decision())
    if how == "no room":
        folder = request.getfixturevalue("small_disk")
        request.getfixturevalue("fill_disk")(folder)
    else:
        folder = tmp_path / "file"
        folder.write_text("no folder")
    with pytest.raises(ArchiveError, match=str(folder)):
        pruner(recorder, Archive(str(folder))).prune()
    assert recorder.get(one.decision_id) == one


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sha256": "A" * 64}, "no sha256"),
        ({"sha256": "a" * 64, "concept": "cat"}, "one of them"),
        ({}, "one of them"),
        ({"concept": "cat", "name": "a b"}, "no name"),
        ({"concept": "cat", "reason": " "}, "reason"),
        ({"since": LATER, "until": LATER}, "before it begins"),
    ],
)
def test_a_hold_that_cannot_be_meant_is_refused(facts: dict[str, object], message: str) -> None:
    with pytest.raises(HoldError, match=message):
        Hold(**{"name": "case-1", "reason": "why", **facts})  # type: ignore[arg-type]


def test_a_sketch_of_a_file_that_is_read_otherwise_takes_the_place_of_that_of_before(
    recorder: Recorder, found: Callable[..., Decision]
) -> None:
    def read(*sketches: bytes) -> dict[SketchKey, tuple[bytes, ...]]:
        first = found(VerdictKind.BLOCK)
        own = made.adapter("a" * 64, sketches=sketches)
        evidence = replace(first.evidence, adapters=(own,))
        recorder.record(replace(first, evidence=evidence), Caller("images"), stage_times_s={})
        key = SketchKey(evidence.base_digest, "a" * 64, "")
        with recorder.database.reading() as connection:
            return read_sketches(connection, [key])

    assert [*read(b"\1" * 64, b"\2" * 64).values()] == [(b"\1" * 64, b"\2" * 64)]
    # fewer, as of a file that was not read to its end, take nothing away
    assert [*read(b"\3" * 64).values()] == [(b"\1" * 64, b"\2" * 64)]
    assert [*read(b"\4" * 64, b"\5" * 64).values()] == [(b"\4" * 64, b"\5" * 64)]
