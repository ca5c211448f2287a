"""The command: what it prints, and how it leaves."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loragate import Concept, Severity, Verdict, __version__
from loragate.cli import main
from loragate.cli.exit_code import ExitCode
from loragate.cli.table import AUDIT_COLUMNS, print_table, printable
from loragate.testing import FakeAuditServer
from loragate.v1 import audit_pb2

LORA = audit_pb2.ADAPTER_KIND_UNSPECIFIED
EMBEDDING = audit_pb2.ADAPTER_KIND_EMBEDDING


@pytest.fixture
def files(tmp_path: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One file per verdict."""
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    made = {}
    for verdict in Verdict:
        path = tmp_path / f"{verdict.lower()}.safetensors"
        path.write_text(verdict)
        fake.verdicts[hashlib.sha256(verdict.encode()).hexdigest()] = verdict
        made[verdict.lower()] = str(path)
    return made


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["allow"], 0),
        (["block"], 1),
        (["review"], 2),
        (["inconclusive"], 2),
        (["allow", "review"], 2),
        (["block", "review", "allow"], 1),
        (["allow", "inconclusive", "missing"], 3),
        (["block", "missing"], 3),
    ],
)
def test_the_worst_verdict_is_the_exit_code(
    files: dict[str, str], names: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *(files.get(name, "/missing/file") for name in names)]) == code
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(names) + 1
    for name in names:
        assert ("ERROR" if name == "missing" else name.upper()) in printed


def test_the_table_names_concept_numbers_and_remedy(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["audit", files["block"], files["allow"]])
    header, block, allow = capsys.readouterr().out.splitlines()
    assert header.split() == [name.upper() for name in AUDIT_COLUMNS]
    assert block.split()[1:7] == ["BLOCK", "forbidden-concept", "0.001", "7.5", "80", "retrain"]
    assert allow.split()[1:7] == ["ALLOW", "-", "-", "-", "-", "none"]
    assert header.index("VERDICT") == block.index("BLOCK") == allow.index("ALLOW")


def test_json_is_one_object_per_file_with_errors_too(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--json", files["block"], "/missing/file"]) == 3
    block, error = map(json.loads, capsys.readouterr().out.splitlines())
    assert block["verdict"] == "BLOCK"
    assert block["findings"][0]["score"] == 7.5
    assert block["expires_at"].endswith("+00:00")
    assert "audited_bytes" not in block
    assert error["verdict"] is None
    assert error["error"]["reason"] == "FILE_NOT_FOUND"


def test_options_reach_the_service(files: dict[str, str], fake: FakeAuditServer) -> None:
    options = "--strength 0.5 --text-encoder-strength 0 --base-model b --concept x --concept y"
    assert main(["audit", *options.split(), "--dry-run", files["allow"]]) == 4
    request = fake.calls[0].request
    assert request.adapters[0].denoiser_strength == 0.5
    assert request.adapters[0].text_encoder_strength == 0.0
    assert (request.base_model, list(request.concept_ids)) == ("b", ["x", "y"])
    assert request.dry_run
    assert request.caller.service == "loragate-cli"


def test_together_is_one_question_and_remote_names_places(
    files: dict[str, str], fake: FakeAuditServer
) -> None:
    assert main(["audit", "--together", files["allow"], files["block"]]) == 1
    assert main(["audit", "--remote", "/models/a", "hf://owner/name"]) == 0
    assert [len(call.request.adapters) for call in fake.calls] == [2, 1, 1]
    assert fake.calls[2].request.adapters[0].uri == "hf://owner/name"


def test_an_embedding_is_asked_about_alone_or_with_what_it_triggers(
    files: dict[str, str], fake: FakeAuditServer
) -> None:
    word, lora = files["allow"], files["review"]
    assert main(["audit", "--embedding", word]) == 0
    assert main(["audit", lora, "--embedding", word, "--strength", "0.5"]) == 2
    assert main(["audit", "--remote", "/models/a", "--embedding", "hf://owner/word"]) == 0
    kinds = [[one.kind for one in call.request.adapters] for call in fake.calls]
    assert kinds == [[EMBEDDING], [LORA, EMBEDDING], [LORA, EMBEDDING]]
    pair = fake.calls[1].request.adapters
    assert [one.HasField("denoiser_strength") for one in pair] == [True, False]
    assert fake.calls[2].request.adapters[1].uri == "hf://owner/word"


def test_a_refusal_prints_reason_and_remedy(
    files: dict[str, str], fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fail_next("PICKLE_REFUSED", message="It is a zip archive.", remedy="Convert it.")
    assert main(["audit", files["allow"]]) == 3
    printed = capsys.readouterr()
    assert "ERROR    PICKLE_REFUSED" in printed.out
    assert "It is a zip archive. Convert it." in printed.err


def test_without_a_service_the_code_says_error_and_not_block(
    files: dict[str, str], fake: FakeAuditServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop()
    assert main(["audit", "--timeout", "1", files["allow"]]) == 3
    assert main(["list", "--timeout", "1"]) == 3
    assert "loragate: [list]" in capsys.readouterr().err


def test_a_span_that_ends_before_it_begins_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["list", "--since", "2026-12-01", "--before", "2026-11-01"])
    assert left.value.code == 3
    assert "--before is not later than --since" in capsys.readouterr().err


def test_get_and_list_show_recorded_decisions(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["audit", "--json", files["block"], files["allow"]])
    block, allow = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert main(["get", block["decision_id"]]) == 1
    shown = capsys.readouterr().out
    assert block["decision_id"] in shown
    assert "The adapter has learned forbidden-concept. [concept_learned]" in shown
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [allow["decision_id"], block["decision_id"]]
    assert main(["list", "--verdict", "block", "--json"]) == 0
    (only,) = capsys.readouterr().out.splitlines()
    assert json.loads(only)["decision_id"] == block["decision_id"]
    for none in (
        ["--base-model", "another"],
        ["--before", "2020-01-01"],
        ["--since", "2999-01-01"],
    ):
        assert main(["list", "--json", *none]) == 0
        assert capsys.readouterr().out == "", none
    assert main(["list", "--limit", "1", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["get", "unknown"]) == 3


def test_concepts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    acme = Concept("acme", "Acme logo", "brand", Severity.MEDIUM, picture_count=8)
    with FakeAuditServer(concepts=(acme,)) as server:
        assert main(["concepts", "list", "--target", server.target]) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["ID", "NAME", "CATEGORY", "SEVERITY", "ROLE", "PICTURES"]
        assert row.split() == ["acme", "Acme", "logo", "brand", "medium", "forbidden", "8"]
        assert main(["concepts", "list", "--json", "--target", server.target]) == 0
        assert json.loads(capsys.readouterr().out)["concept_id"] == "acme"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["audit"],
        ["audit", "--timeout", "0", "x"],
        ["audit", "--strength", "strong", "x"],
        ["list", "--verdict", "maybe"],
        ["list", "--limit", "0"],
        ["fly"],
    ],
)
def test_wrong_arguments_leave_with_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == ExitCode.ERROR
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["audit"], ["get"]])
def test_help_teaches_examples_and_exit_codes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert f"loragate {command[0]}" in printed
    assert "example" in printed
    assert "exit codes:\n  0  " in printed


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"loragate {__version__}\n"


@pytest.mark.parametrize("module", ["loragate", "loragate.cli"])
def test_the_command_runs_as_a_module_too(module: str) -> None:
    def run(argument: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, argument]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("--version").stdout == f"loragate {__version__}\n"
    wrong = run("--what")
    assert wrong.returncode == ExitCode.ERROR
    assert wrong.stdout.startswith("usage: loragate ")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [("a", "BLOCK")]
    for stream, coloured in ((io.StringIO(), False), (_Terminal(), True)):
        print_table(("file", "verdict"), rows, stream)
        assert ("\x1b[31mBLOCK" in stream.getvalue()) is coloured
    monkeypatch.setenv("NO_COLOR", "")
    stream = _Terminal()
    print_table(("file", "verdict"), rows, stream)
    assert "\x1b" not in stream.getvalue()


def test_a_file_name_cannot_rule_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == "a?[2Jb?c?d"
