"""What the command says of pilots, loaders, what is no file, and arguments that cannot be."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loragate import AuditClient, Internal, Verdict
from loragate.cli import main
from loragate.cli.table import print_table
from loragate.reference import LOADERS
from loragate.testing import FakeAuditServer
from loragate.v1 import audit_pb2
from loragate_server.intake.loader_rules.names import LOADERS as LOADERS_OF_THE_SERVER
from tests.client.python_names import assert_no_python

SHA256 = "a" * 64


@pytest.fixture
def style(tmp_path: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter in a folder of its own."""
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    path = tmp_path / "loras" / "style.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"adapter")
    return path


def pilot(would_be: str) -> Any:
    """Makes of an answer that of a pilot, as the server gives it."""

    def change(verdict: audit_pb2.Verdict) -> None:
        verdict.mode = audit_pb2.MODE_PILOT
        verdict.verdict = audit_pb2.VERDICT_KIND_ALLOW
        verdict.would_be_verdict = audit_pb2.VerdictKind.Value(f"VERDICT_KIND_{would_be}")

    return change


@pytest.mark.parametrize("would_be", ["BLOCK", "REVIEW", "INCONCLUSIVE"])
def test_a_pilots_allow_says_what_enforcing_would_say(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str], would_be: str
) -> None:
    fake.default, fake.falsify = Verdict.BLOCK, pilot(would_be)
    for command in (["audit", str(style)], ["gate-dir", str(style.parent)]):
        assert main(command) == 0
        told = capsys.readouterr()
        assert f"ALLOW (pilot; would be {would_be})" in told.out
        assert "the policy is a pilot" in told.err
        assert "would keep out 1 of what it allowed" in told.err


def test_a_pilots_allow_that_enforcing_would_give_too_says_pilot_and_no_more(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.falsify = pilot("ALLOW")
    assert main(["audit", str(style)]) == 0
    told = capsys.readouterr()
    assert "ALLOW (pilot)" in told.out
    assert told.err == ""
    fake.falsify = None
    assert main(["audit", str(style)]) == 0
    assert "(pilot" not in capsys.readouterr().out


def measured(kind: str, value: float, threshold: float, *, own: float, over: float) -> Any:
    """Adds to an answer a concept that is let through, as the server gives it."""

    def change(verdict: audit_pb2.Verdict) -> None:
        limit = audit_pb2.Measured(kind=f"MEASURE_KIND_{kind}", value=value, threshold=threshold)
        verdict.findings.add(
            concept_id="bomb",
            concept_name="Bomb",
            verdict=audit_pb2.VERDICT_KIND_ALLOW,
            p_value=own,
            library_p_value=over,
            degree=12,
            decided_by=limit,
        )

    return change


def test_a_near_miss_is_explained_with_both_p_values_and_the_limit(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.falsify = measured("LIBRARY_P_VALUE", 0.21, 0.05, own=0.049, over=0.21)
    for command in (["audit", str(style)], ["gate-dir", str(style.parent)]):
        assert main(command) == 0
        told = capsys.readouterr()
        assert (
            "style.safetensors: near miss: 'Bomb' has a p-value of 0.049 alone, 0.21 over the "
            "library; the limit is 0.05 over the library." in told.err
        )
        assert " 0.21 " in told.out  # the one that decides stands in the table


def test_what_only_its_degree_lets_through_is_a_near_miss(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.falsify = measured("DEGREE", 12, 20, own=0.001, over=0.004)
    assert main(["audit", str(style)]) == 0
    assert "its degree is 12, and below 20 nothing counts." in capsys.readouterr().err


def test_what_is_far_from_every_limit_is_not_spoken_of(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.falsify = measured("LIBRARY_P_VALUE", 0.8, 0.05, own=0.3, over=0.8)
    assert main(["audit", str(style)]) == 0
    assert capsys.readouterr().err == ""


def test_a_decision_shows_both_p_values_and_the_limit_of_each_concept(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.falsify = measured("LIBRARY_P_VALUE", 0.21, 0.05, own=0.049, over=0.21)
    result = AuditClient(target=fake.target).audit_file(style)
    assert main(["get", result.decision_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == [
        "CONCEPT",
        "VERDICT",
        "P-VALUE",
        "ALONE",
        "SCORE",
        "DEGREE",
        "LIMIT",
    ]
    assert lines[-1].split("  ")[0] == "Bomb"
    for cell in ("0.21", "0.049", "12", "library p value 0.05"):
        assert cell in lines[-1]


def test_reports_name_what_only_a_pilot_lets_in(
    style: Path, tmp_path: Path, fake: FakeAuditServer
) -> None:
    fake.default, fake.falsify = Verdict.BLOCK, pilot("BLOCK")
    sarif, junit = tmp_path / "r.sarif", tmp_path / "r.xml"
    reports = ["--sarif", str(sarif), "--junit", str(junit)]
    assert main(["gate-dir", *reports, str(style.parent)]) == 0
    (result,) = json.loads(sarif.read_text())["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("only-by-pilot", "note")
    suites = ElementTree.parse(junit).getroot()
    assert suites.get("failures") == "0"
    said = suites.find(".//system-out")
    assert said is not None
    assert "enforced, the policy says BLOCK" in (said.text or "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pilots_verdict_has_the_colour_of_what_it_would_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = _Terminal()
    rows = [("ALLOW (pilot; would be BLOCK)",), ("ALLOW (pilot)",)]
    print_table(("verdict",), rows, stream)
    assert "\x1b[31mALLOW (pilot; would be BLOCK)" in stream.getvalue()
    assert "\x1b[32mALLOW (pilot)" in stream.getvalue()


def test_the_loaders_are_those_of_the_server() -> None:
    assert LOADERS == LOADERS_OF_THE_SERVER


def test_a_loader_that_does_not_exist_is_refused_with_those_that_do(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["audit", "--loader", "foo", str(style)])
    assert left.value.code == 3
    told = capsys.readouterr().err
    assert "--loader" in told
    assert all(loader in told for loader in LOADERS)
    assert fake.calls == []


def test_a_verdict_for_other_loaders_says_so_and_how_to_have_one(
    style: Path, fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def only_diffusers(verdict: audit_pb2.Verdict) -> None:
        verdict.ClearField("loaders")
        verdict.loaders.append("diffusers")

    fake.falsify = only_diffusers
    assert main(["audit", "--loader", "diffusers", str(style)]) == 0
    capsys.readouterr()
    assert main(["audit", "--loader", "comfyui", str(style)]) == 3
    told = capsys.readouterr()
    assert "speaks for diffusers and not for 'comfyui': comfyui cannot load this file" in told.err
    assert "name it in intake.loaders of the service's configuration" in told.err
    assert "stands between" not in told.err
    assert "ANSWER_NOT_BELIEVED" in told.out
    assert_no_python(told.out.replace("ERROR", ""))
    with AuditClient(fake.target) as client, pytest.raises(Internal) as caught:
        client.audit(b"adapter", loader="foo")
    assert caught.value.remedy.startswith("There is no loader of this name. Say diffusers, peft")


def test_what_is_no_file_has_a_word_and_a_remedy_and_no_class_of_python(
    style: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path, word, remedy in [
        (
            tmp_path / "nothing.safetensors",
            "FILE_NOT_FOUND",
            "--remote has the server read",
        ),
        (style.parent, "NOT_A_FILE", "`loragate scan` needs no service"),
        (tmp_path / "pipe.safetensors", "NOT_A_FILE", "is not a regular file"),
        (style / "below", "UNREADABLE", "Not a directory"),
    ]:
        for together in ([], ["--together", str(style)]):
            assert main(["audit", *together, str(path)]) == 3
            told = capsys.readouterr()
            assert word in told.out
            assert remedy in told.err
            assert_no_python(told.out + told.err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "--sha256", "zz"], "'zz' is not a sha256, which has 64 hexadecimal digits"),
        (["list", "--since", "yesterday"], "'yesterday' is not a moment, which is a day or a time"),
        (["list", "--sha256", SHA256[:12]], "`loragate get` show digests in full"),
        (["list", "--limit", "many"], "'many' is not a positive whole number"),
        (["list", "--limit", "-1"], "'-1' is not a positive whole number"),
        (["list", "--timeout", "1m"], "'1m' is not a positive number of seconds"),
        (["list", "--timeout", "nan"], "'nan' is not a positive number of seconds"),
        (["audit", "--strength", "strong", "x"], "'strong' is not a strength"),
        (["audit", "--text-encoder-strength", "inf", "x"], "'inf' is not a strength"),
        (["audit", "--base-digest", "zz", "x"], "'zz' is not a sha256"),
        (["gate-dir", "--concurrency", "0.5", "x"], "'0.5' is not a positive whole number"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_option_and_what_it_should_be(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 3
    told = capsys.readouterr().err
    assert f"argument {arguments[1]}: {arguments[2]!r} is not " in told
    assert said in told
    assert_no_python(told)


async def test_both_clients_refuse_a_digest_that_no_adapter_has(client: Any, fake: Any) -> None:
    with pytest.raises(ValueError, match="sha256 of 64 characters, not 'zz'"):
        await client.collect("list", adapter_sha256="zz")
    assert fake.calls == []
    assert await client.collect("list", adapter_sha256=SHA256.upper()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sarif", "/nonexist/x"], "--sarif cannot be written: No such file or directory"),
        (["--junit", "/nonexist/x"], "--junit cannot be written: No such file or directory"),
        (["--sarif", "."], "--sarif cannot be written: Is a directory: ."),
        (["--sarif", "r", "--junit", "./r"], "--sarif and --junit both name r"),
        (["--quarantine", "file"], "--quarantine cannot be file"),
        (["--quarantine", "file/below"], "file is no folder that you may write to"),
    ],
)
def test_a_report_or_quarantine_that_cannot_be_is_told_before_anything_is_audited(
    style: Path,
    tmp_path: Path,
    fake: FakeAuditServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["gate-dir", *options, str(style.parent)]) == 3
    assert said in capsys.readouterr().err
    assert fake.calls == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loras"]


def test_a_report_of_last_time_stays_when_this_time_fails_before_it(
    style: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r.sarif"
    report.write_text("last time")
    assert main(["gate-dir", "--sarif", str(report), str(tmp_path / "missing")]) == 3
    assert report.read_text() == "last time"


@pytest.mark.parametrize("command", ["audit", "gate-dir", "get", "list"])
def test_help_names_variables_and_the_time_limit(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in ("TARGET", "TIMEOUT_S", "TLS_CA", "TLS_CERT", "TLS_KEY", "TOKEN_FILE"):
        assert f"$LORAGATE_{name}" in told
    asked = "else 60 for an audit" if command in ("audit", "gate-dir") else "else 10)"
    assert asked in told


@pytest.mark.parametrize("command", ["audit", "gate-dir"])
def test_help_says_what_a_question_about_some_concepts_is_worth_and_which_code_wins(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    flat = " ".join(told.split())
    assert "restrict.callers" in flat
    assert "`loragate concepts list` shows the ids" in flat
    assert "no load may rest on such an answer" in flat
    assert "3 before 1, 1 before 2, 2 before 4, and 4 before 0" in flat
    assert "loragate audit --concept" not in told
