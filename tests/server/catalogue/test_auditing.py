"""An auditor keeps what goes wrong with the file that it is wrong with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragate_server.app.cataloguing import serve_one
from loragate_server.audit.engine import AuditEngine
from loragate_server.catalogue.auditing import Auditor, Question, file_of
from loragate_server.catalogue.claims import Claims
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.failure import KILLS
from loragate_server.catalogue.measured import packed, unpacked
from loragate_server.catalogue.reading import read
from loragate_server.config.intake import IntakeSection
from loragate_server.config.schema import Config
from loragate_server.errors import NoDecisionError
from loragate_server.gate.bases import ServedBase
from loragate_server.gate.measured import require_of
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE
from testkit.derived_adapters import CLEAR, rescaled

QUESTION = Question(IntakeSection().loaders, 0.01, 300.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedBase:
    config = Config(state_dir=tmp_path_factory.mktemp("state"), cache_dir=SHARED_CACHE, threads=1)
    return serve_one(config.model_dump_json(), "")


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    settings = IntakeSection(roots=(tmp_path,))
    return [read(Entry(str(path)), settings) for path in rescaled(CLEAR, tmp_path, (1.0, 0.5, 0.3))]


@pytest.fixture
def auditor(served: ServedBase) -> Callable[..., Auditor]:
    return lambda claims=None: Auditor(lambda: served, QUESTION, claims or Claims())


def test_every_file_comes_back_in_its_row_without_its_bytes(
    auditor: Callable[..., Auditor], rows: list[dict[str, Any]]
) -> None:
    found = list(auditor().audit(rows))
    assert [one["location"] for one in found] == [row["location"] for row in rows]
    assert not any("data" in one or one["reason"] for one in found)
    for one in found:
        evidence, times_s = unpacked(one["measured"])
        assert evidence.adapters[0].sha256 == one["sha256"]
        assert {"intake", "read", "screen"} <= set(times_s)
        assert evidence.adapters[0].sketches
        assert packed(evidence, times_s) == one["measured"]


def test_how_many_files_may_share_a_launch_is_tried_out_only_where_there_are_several(
    served: ServedBase, rows: list[dict[str, Any]]
) -> None:
    engine = AuditEngine(served.base, served.engine.materials)
    anew = replace(served, engine=engine)
    [alone] = Auditor(lambda: anew, QUESTION, Claims()).audit(rows[:1])
    assert not engine.knows_sizes
    together = list(Auditor(lambda: anew, QUESTION, Claims()).audit(rows))
    assert engine.knows_sizes
    first, again = (unpacked(one["measured"])[0] for one in (alone, together[0]))
    assert replace(first, stage_times_s={}) == replace(again, stage_times_s={})


def test_a_file_that_cannot_be_converted_is_refused_and_the_others_are_not(
    auditor: Callable[..., Auditor], rows: list[dict[str, Any]]
) -> None:
    rows[1]["config_json"] = "{"
    found = list(auditor().audit(rows))
    assert [one["reason"] for one in found] == ["", "ADAPTER_METADATA_INVALID", ""]


def test_a_batch_that_fails_is_audited_file_by_file(
    auditor: Callable[..., Auditor],
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = AuditEngine.audit_many

    def one_fails(self: AuditEngine, questions: Any, *args: Any, **more: Any) -> Any:
        for members in questions:
            if members[0].readings[0].sha256 == rows[2]["sha256"]:
                raise MemoryError
        return exact(self, questions, *args, **more)

    monkeypatch.setattr(AuditEngine, "audit_many", one_fails)
    found = list(auditor().audit(rows))
    assert [one["reason"] for one in found] == ["", "", "OUT_OF_MEMORY"]


def test_a_file_that_killed_its_process_is_named_and_not_looked_at(
    auditor: Callable[..., Auditor], rows: list[dict[str, Any]]
) -> None:
    claims = Claims()
    claims.claim([(row["key"], row["location"]) for row in rows])  # a process that was killed
    claims.begin_alone(rows[0]["key"])  # and another one
    found = list(auditor(claims).audit(rows))
    assert [one["reason"] for one in found] == [KILLS, "", ""]
    assert not found[0]["measured"]
    assert found[1]["measured"]
    assert found[2]["measured"]


def test_bytes_that_are_on_record_are_not_audited_again(
    auditor: Callable[..., Auditor], rows: list[dict[str, Any]]
) -> None:
    found = list(auditor(Claims([rows[0]["key"]])).audit(rows))
    assert [one["same"] for one in found] == [True, False, False]
    assert not found[0]["measured"]


@pytest.mark.parametrize(
    "change",
    [
        {"base_digest": "0" * 64},
        {"library_digest": "0" * 64},
        {"engine_version": "0"},
        {"adapters": ()},
    ],
)
def test_nothing_is_decided_over_what_was_measured_by_other_means(
    auditor: Callable[..., Auditor],
    served: ServedBase,
    rows: list[dict[str, Any]],
    change: dict[str, Any],
) -> None:
    [first, second, _] = auditor().audit(rows)
    evidence, _ = unpacked(first["measured"])
    require_of(evidence, file_of(first), served)
    with pytest.raises(NoDecisionError, match="is of another"):
        require_of(replace(evidence, **change), file_of(first), served)
    with pytest.raises(NoDecisionError, match="is of another"):
        require_of(evidence, file_of(second), served)


def test_every_batch_is_audited_under_guard(
    served: ServedBase, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[bool] = []
    polls: list[int] = []

    class Counting(Leash):
        def check(self) -> None:
            polls.append(1)
            super().check()

    @contextmanager
    def guard() -> Iterator[Leash]:
        inside.append(True)
        yield Counting()
        inside.append(False)

    audit_many = AuditEngine.audit_many

    def watched(*args: Any, **options: Any) -> Any:
        assert inside[-1]
        return audit_many(*args, **options)

    monkeypatch.setattr(AuditEngine, "audit_many", watched)
    found = list(Auditor(lambda: served, QUESTION, Claims(), guard).audit(rows))
    assert sum(bool(one["measured"]) for one in found) >= 2
    assert inside == [True, False]
    assert len(polls) > 2 * len(rows), "each file is a sign of life"
