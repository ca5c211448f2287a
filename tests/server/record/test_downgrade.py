"""One version up, down and up again, with real rows in the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import Decision, Finding, Remedy, VerdictKind
from loragate_server.record.connect import parse_url
from loragate_server.record.migrate import downgrade, known_revisions, revision_of, upgrade
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller

OWN, BEFORE = known_revisions()[-1], known_revisions()[-2]


def rows(database_url: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything in every table but the mark of the revision."""
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
        found = {
            name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}"))), key=repr)
            for name in names
        }
    engine.dispose()
    return found


def test_the_newest_step_down_and_up_again_loses_no_row(
    database_url: str, log_path: Path, decision: Callable[..., Decision]
) -> None:
    recorder = Recorder(database_url, log_path)
    for kind in (VerdictKind.ALLOW, VerdictKind.BLOCK):
        recorder.record(decision(kind), Caller("images"), stage_times_s={})
    recorder.close()
    before = rows(database_url)
    assert len(before["audits"]) == 2
    downgrade(database_url, BEFORE)
    assert revision_of(database_url) == BEFORE
    upgrade(database_url)
    assert revision_of(database_url) == OWN
    assert rows(database_url) == before
    recorder = Recorder(database_url, log_path)
    recorder.record(decision(), Caller(), stage_times_s={})
    assert len(recorder.list()[0]) == 3
    recorder.close()


def test_every_step_down_and_up_again_keeps_the_decisions(
    database_url: str, log_path: Path, decision: Callable[..., Decision]
) -> None:
    recorder = Recorder(database_url, log_path)
    made = recorder.record(decision(), Caller("images"), stage_times_s={})
    recorder.close()
    for revision in reversed(known_revisions()[:-1]):
        downgrade(database_url, revision)
        assert revision_of(database_url) == revision
        upgrade(database_url)
        recorder = Recorder(database_url, log_path)
        assert recorder.get(made.decision_id) == made
        recorder.close()


@pytest.mark.parametrize("revision", ["0099", "nonsense", "head"])
def test_a_way_that_does_not_lead_back_is_refused(database_url: str, revision: str) -> None:
    upgrade(database_url)
    with pytest.raises(NoDecisionError, match=revision) as caught:
        downgrade(database_url, revision)
    assert BEFORE in caught.value.remedy
    assert revision_of(database_url) == OWN


def test_the_commands_lead_down_and_up_and_say_where_the_tables_are(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(application, ["db", *words])
        return done.exit_code, done.output

    assert run("upgrade")[0] == 0
    assert run("revision") == (0, f"tables {OWN}, this version {OWN}\n")
    assert run("downgrade", BEFORE)[0] == 0
    assert run("revision") == (1, f"tables {BEFORE}, this version {OWN}\n")
    status, said = run("downgrade", "0099")
    assert (status, "0099" in said) == (3, True)
    assert run("upgrade")[0] == 0
    assert run("revision")[0] == 0


def test_tables_are_not_taken_back_under_a_server(tmp_path: Path) -> None:
    database_url, log = f"sqlite:///{tmp_path}/loragate.sqlite3", tmp_path / "decisions.jsonl"
    server = Recorder(database_url, log)
    state = ["--state-dir", str(tmp_path)]
    refused = CliRunner().invoke(application, ["db", "downgrade", BEFORE, *state])
    assert refused.exit_code == 3
    assert f"a server writes {log}; stop all servers" in refused.stderr
    assert revision_of(database_url) == OWN
    server.close()
    done = CliRunner().invoke(application, ["db", "downgrade", BEFORE, *state])
    assert done.exit_code == 0, done.output


def test_a_step_up_reads_what_each_decision_found_out_of_it(
    database_url: str, log_path: Path, decision: Callable[..., Decision]
) -> None:
    recorder = Recorder(database_url, log_path)
    made = decision(VerdictKind.BLOCK)
    [concept] = made.evidence.concepts
    odd = replace(concept, concept_name="\x00\ud800", severity="s" * 40, degree=float("nan"))
    found = tuple(Finding(one, VerdictKind.BLOCK, Remedy.NONE) for one in (concept, odd))
    recorder.record(replace(made, findings=found), Caller("images"), stage_times_s={})
    recorder.close()
    before = rows(database_url)
    assert len(before["findings"]) == 2
    downgrade(database_url, "0008")
    assert "findings" not in rows(database_url)
    upgrade(database_url)
    assert rows(database_url) == before
