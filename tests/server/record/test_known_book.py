"""Known uses in the database and in memory, and the definition that the book has to agree with."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from loragate_server.audit.evidence import UsedAdapter, UseEvidence
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.known import KnownUse
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record.connect import parse_url
from loragate_server.record.database import Database
from loragate_server.record.known_book import KnownBook
from loragate_server.record.known_rows import files_key, known_of, known_since
from loragate_server.record.migrate import alembic_config, upgrade
from loragate_server.record.tables import audits, known_uses
from loragate_server.record.verdict import Caller
from testkit.waiting import busyness

A, B, C = "a" * 64, "b" * 64, "c" * 64
BASE = "b" * 64
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def used(sha256: str, strength: float = 0.7, config: str = "") -> ReviewedAdapter:
    return ReviewedAdapter(sha256, config, strength, 1.0)


def asked(*adapters: ReviewedAdapter) -> tuple[tuple[ReviewedAdapter, ...], ...]:
    return tuple((one,) for one in adapters)


def test_what_is_blocked_is_known_everywhere_and_what_is_allowed_first_is_not_stored(
    database_url: str,
    log_path: Any,
    open_recorder: Callable[..., Any],
    decision: Callable[..., Any],
) -> None:
    recorder = open_recorder(database_url, log_path)
    book = KnownBook(recorder.database)
    book.refresh()

    def record(verdict: VerdictKind, *sha256s: str, **changes: Any) -> Any:
        made = decision(verdict, sha256s=sha256s, **changes)
        return recorder.record(made, Caller(), stage_times_s={})

    record(VerdictKind.ALLOW, A)
    assert rows(recorder.database) == []
    first = record(VerdictKind.BLOCK, A)
    assert book.about(asked(used(A), used(B)), BASE) == ()
    book.refresh()
    assert book.about(asked(used(A), used(B)), BASE) == known_of(first)
    record(VerdictKind.ALLOW, A)
    record(VerdictKind.REVIEW, A)
    book.refresh()
    assert book.about(asked(used(A), used(B)), BASE) == ()
    assert book.about(asked(used(A, 0.8), used(B)), BASE) == ()
    second = record(VerdictKind.BLOCK, B, A)
    book.refresh()
    assert book.about(asked(used(A), used(C), used(B)), BASE) == known_of(second)
    assert [one.blocked for one in rows(recorder.database)] == [True, False, True]


def rows(database: Database) -> list[KnownUse]:
    with database.reading() as connection:
        return known_since(connection, None)


def test_a_decision_that_becomes_visible_late_is_read(database_url: str) -> None:
    """Another replica's transaction may end after one that began later."""
    upgrade(database_url)
    database = Database(database_url, 5)
    book = KnownBook(database)
    insert_row(database, "late", BEGIN + timedelta(seconds=30), B)
    book.refresh()
    insert_row(database, "early", BEGIN, A)
    book.refresh()
    found = book.about(asked(used(A), used(B), used(C)), BASE)
    assert {one.decision_id for one in found} == {"early", "late"}
    database.close()


def test_what_is_blocked_alone_stands_in_one_order_on_every_replica(database_url: str) -> None:
    """Whichever file each has heard of first."""
    upgrade(database_url)
    database = Database(database_url, 5)
    uses = [KnownUse("same", BEGIN, BASE, (used(one),), blocked=True) for one in (A, B, C)]
    orders = []
    for heard in itertools.permutations(uses):
        book = KnownBook(database)
        book._take(heard)
        orders.append(book.alone())
    assert set(orders) == {tuple(uses)}
    database.close()


def test_what_a_replica_decides_whose_clock_is_behind_is_known(database_url: str) -> None:
    upgrade(database_url)
    database = Database(database_url, 5)
    book = KnownBook(database)
    insert_row(database, "now", BEGIN + timedelta(hours=1), B)
    book.refresh()
    for number, behind in enumerate((timedelta(minutes=30), timedelta())):
        insert_row(database, f"behind-{number}", BEGIN + behind, (A, C)[number])
        insert_row(
            database, f"beside-{number}", BEGIN + timedelta(hours=1, seconds=number), "d" * 64
        )
        book.refresh()
        found = book.about(asked(used(A), used(B), used(C)), BASE)
        assert len([one for one in found if one.decision_id.startswith("behind")]) == number + 1
        revision = book.revision
        book.refresh()
        assert book.revision == revision  # what was known is no news
    database.close()


def insert_row(database: Database, decision_id: str, at: datetime, sha256: str) -> None:
    """A blocked use, as another replica would have written it."""
    strings = {
        column.name: "x"
        for column in audits.columns
        if str(column.type).startswith(("VARCHAR", "TEXT")) and not column.nullable
    }
    moments = {"decided_at": at, "expires_at": at}
    with database.writing() as connection:
        row = {**strings, **moments, "decision_id": decision_id, "dry_run": False}
        connection.execute(audits.insert().values(**row))
        connection.execute(
            known_uses.insert().values(
                decision_id=decision_id,
                position=0,
                decided_at=at,
                base_digest=BASE,
                files=files_key([sha256]),
                blocked=True,
                members=f'[["{sha256}", "", 0.7, 1.0]]',
            )
        )


def test_what_was_blocked_before_uses_were_known_is_known_after_the_migration(
    database_url: str,
) -> None:
    engine = create_engine(parse_url(database_url))
    upgrade(database_url)
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        for number, (verdict, dry_run, files) in enumerate(
            [
                ("BLOCK", False, [A]),
                ("ALLOW", False, [B]),
                ("BLOCK", True, [B]),
                ("BLOCK", False, [C, B]),
            ]
        ):
            connection.execute(
                text(
                    "INSERT INTO audits (decision_id, decided_at, expires_at, verdict,"
                    " would_be_verdict, mode, remedy, dry_run, base_model, base_digest,"
                    " library_digest, policy_digest, engine_version, caller_service,"
                    " caller_tenant, caller_request_id, caller_identity, payload) VALUES"
                    " (:id, :at, :at, :verdict, :verdict, 'ENFORCE', 'NONE', :dry_run, 'm',"
                    " :base, 'l', 'p', '3', '', '', '', '', '{}')"
                ),
                {
                    "id": f"d{number}",
                    "at": "2026-01-01 00:00:00+00:00",
                    "verdict": verdict,
                    "dry_run": dry_run,
                    "base": BASE,
                },
            )
            for position, sha256 in enumerate(files):
                connection.execute(
                    text(
                        "INSERT INTO audited_adapters (decision_id, position, sha256, size_bytes,"
                        " format, denoiser_strength, text_encoder_strength) VALUES"
                        " (:id, :position, :sha256, 1, 'peft', 0.7, 1.0)"
                    ),
                    {"id": f"d{number}", "position": position, "sha256": sha256},
                )
    engine.dispose()
    upgrade(database_url)
    database = Database(database_url, 5)
    found = {one.decision_id: one for one in rows(database)}
    assert set(found) == {"d0", "d3"}
    assert found["d0"].members == (used(A),)
    assert found["d3"].members == (used(B), used(C))
    assert found["d0"].decided_at == BEGIN
    with database.reading() as connection:
        binding = dict(connection.execute(text("SELECT decision_id, binding FROM audits")).all())
    assert {key: bool(value) for key, value in binding.items()} == {
        "d0": True,
        "d1": True,
        "d2": False,
        "d3": True,
    }
    database.close()


def test_a_use_that_one_concept_was_found_in_is_what_is_known(
    database_url: str,
    log_path: Any,
    open_recorder: Callable[..., Any],
    decision: Callable[..., Any],
) -> None:
    """Of a set that is blocked because of one member alone, that member is known."""
    recorder = open_recorder(database_url, log_path)
    made = decision(VerdictKind.BLOCK, sha256s=(A, B))
    together = UseEvidence((UsedAdapter(0, 0.7, 1.0), UsedAdapter(1, 0.7, 1.0)), ())
    alone = UseEvidence((UsedAdapter(1, 0.7, 1.0),), ())
    concept = replace(made.findings[0].evidence, use=1)
    made = replace(
        made,
        findings=(replace(made.findings[0], evidence=concept),),
        evidence=replace(made.evidence, concepts=(concept,), uses=(together, alone)),
    )
    recorder.record(made, Caller(), stage_times_s={})
    [known] = rows(recorder.database)
    assert known.members == (used(B),)


ADAPTERS = st.builds(used, st.sampled_from([A, B, C]), st.sampled_from([0.5, 1.0]))
HISTORY = st.lists(st.tuples(st.lists(ADAPTERS, min_size=1, max_size=3), st.booleans()), max_size=8)
WANTED = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.sets(st.sampled_from([0.5, 1.0]), min_size=1)),
    min_size=1,
    max_size=4,
)


@given(HISTORY, WANTED)
def test_the_book_agrees_with_the_definition(
    history: Sequence[tuple[Sequence[ReviewedAdapter], bool]],
    wanted: Sequence[tuple[str, set[float]]],
) -> None:
    uses = [
        KnownUse(f"{number:03}", BEGIN + timedelta(seconds=number), BASE, members, blocked)
        for number, (listed, blocked) in enumerate(history)
        if (members := tuple(sorted(listed)))
    ]
    book = KnownBook(None)  # type: ignore[arg-type]
    book._take(uses)
    ways = tuple(
        tuple(used(sha256, strength) for strength in sorted(strengths))
        for sha256, strengths in wanted
    )
    found = {one.sha256s for one in book.about(ways, BASE)}
    assert found == set(defined(uses, ways))


def defined(
    uses: Sequence[KnownUse], ways: Sequence[tuple[ReviewedAdapter, ...]]
) -> Sequence[tuple[str, ...]]:
    """Sets of files that stand blocked against a request, straight from the words."""
    found = []
    for files in {use.sha256s for use in uses if use.blocked}:
        about = [use for use in uses if use.sha256s == files]
        first = min(i for i, use in enumerate(about) if use.blocked)
        newest = {use.members: use.blocked for use in about[first:]}
        if not any(newest.values()):
            continue
        made = [
            tuple(sorted(members))
            for chosen in itertools.combinations(ways, len(files))
            for members in itertools.product(*chosen)
            if Counter(one.sha256 for one in members) == Counter(files)
        ]
        if len(files) < len(ways) and any(newest.get(one, True) for one in made):
            found.append(files)
    return found


def test_a_request_of_many_files_is_compared_without_trying_all_choices(
    tmp_path: Path,
) -> None:
    database = Database(f"sqlite:///{tmp_path}/known.sqlite3", timeout_s=5.0)
    book = KnownBook(database)
    files = [f"{number:064x}" for number in range(32)]
    known = files[:10]
    members = tuple(sorted(used(one) for one in known))
    louder = tuple(sorted(used(one, 0.9) for one in known))
    book._take([KnownUse("one", BEGIN, BASE, louder, blocked=True)])
    began_s = time.monotonic()
    [found] = book.about(asked(*map(used, files)), BASE)
    assert found.decision_id == "one"
    allowed = KnownUse("two", BEGIN + timedelta(1), BASE, members, blocked=False)
    book._take([allowed])
    assert book.about(asked(*map(used, files)), BASE) == ()
    # each of them many times: more ways than are looked at, and none of them allowed
    assert book.about(asked(*(used(one, 0.5 + n) for one in known for n in range(3))), BASE) != ()
    assert time.monotonic() - began_s < 5.0 + busyness()
    database.close()
