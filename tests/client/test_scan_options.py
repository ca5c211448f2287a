"""What `loragate scan` looks at and how it reports, on files that are refused without an engine."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loragate.cli import main
from loragate.cli.reports import CSV_COLUMNS
from loragate.cli.scan_paths import Choice, gather
from tests.client.scans import at_a_terminal

NASTY = "=<script src=x>alert(1)\x1b[2J.pt"
"""A name that a spreadsheet would compute, a browser run, and a terminal obey."""


@pytest.fixture
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which everything is refused or passed over; it is the present one."""
    for name in ("one.pt", "deep/two.bin", "backup/old.ckpt", ".hidden/three.gguf"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"\x80\x02")
    (tmp_path / "card.md").write_text("a card")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    return tmp_path


def scan(*words: object) -> int:
    return main(["scan", *map(str, words)])


def names(*places: str, **choice: object) -> list[str]:
    return [one.name for one in gather(places, Choice(**choice)).files]  # type: ignore[arg-type]


ALL = [".hidden/three.gguf", "backup/old.ckpt", "deep/two.bin", "one.pt"]


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (["."], ALL),
        (["one.pt"], ["one.pt"]),
        (["one.pt", "card.md"], ["one.pt"]),
        (["deep", "one.pt", "deep/two.bin", "./deep/../deep"], ["deep/two.bin", "one.pt"]),
        (["*.pt"], ["one.pt"]),
        (["**/*.*"], ALL),
        (["b*"], ["backup/old.ckpt"]),
    ],
)
def test_files_folders_and_patterns_are_looked_at_each_file_once(
    loras: Path, places: list[str], found: list[str]
) -> None:
    assert names(*places) == found


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"include": ("*.pt",)}, ["one.pt"]),
        ({"include": ("two.*", "*.pt")}, ["deep/two.bin", "one.pt"]),
        ({"exclude": ("backup/*", ".*")}, ["deep/two.bin", "one.pt"]),
        ({"include": ("*.pt", "*.bin"), "exclude": ("deep/*",)}, ["one.pt"]),
    ],
)
def test_include_and_exclude_choose_by_path_or_name(
    loras: Path, choice: dict[str, tuple[str, ...]], found: list[str]
) -> None:
    assert names(".", **choice) == found
    gathered = gather(["."], Choice(**choice))  # type: ignore[arg-type]
    assert sorted({*found, *gathered.passed_over} - {"card.md"}) == ALL


def test_a_name_with_the_letters_of_a_pattern_is_taken_as_it_stands(loras: Path) -> None:
    (loras / "style[v2].pt").write_bytes(b"")
    assert names("style[v2].pt") == ["style[v2].pt"]


def test_links_are_refused_unless_they_are_followed(loras: Path) -> None:
    (loras / "link.safetensors").symlink_to("one.pt")
    [found] = gather(["link.safetensors"], Choice()).files
    assert found.refusal is not None
    assert found.refusal.reason == "SYMBOLIC_LINK"
    [found] = gather(["link.safetensors"], Choice(follow_symlinks=True)).files
    assert found.refusal is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "There is no nowhere on this machine, and as a pattern it matches nothing"),
        (["card.md"], "There is no adapter in card.md. --allow-empty accepts it."),
        ([".", "--include", "*.sft"], "--include and --exclude leave out all 5 files."),
        (["ftp://host/a.safetensors"], "only from hf:// and s3://"),
        (["one.pt", "--output", "no/such/folder/a"], "--output cannot be written"),
        (["one.pt", "--policy", "gone.yaml"], "--policy: gone.yaml is no file"),
        (["one.pt", "--calibration", "gone.json"], "--calibration: gone.json is no file"),
        (["one.pt", "--base", "one.pt"], "--base: one.pt is no folder"),
        (["one.pt", "--library", ""], "--library is empty"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_audited(
    loras: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(*words) == 3
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_nothing_to_audit_can_be_said_to_be_no_error(loras: Path) -> None:
    assert scan("card.md", "--allow-empty") == 0


def test_an_address_names_one_file_of_weights(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan("hf://owner/name", "--format", "json") == 3
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "NOT_SAFETENSORS"
    [found] = gather(["s3://bucket/a.safetensors"], Choice()).files
    assert (found.uri, found.name) == ("s3://bucket/a.safetensors",) * 2


def report_of(form: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    (Path.cwd() / NASTY).write_bytes(b"")
    assert scan(".", "--include", "=*", "--format", form, *more) == 3
    return capsys.readouterr().out


def test_csv_has_a_row_per_file_and_nothing_that_a_spreadsheet_computes(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, row = csv.reader(io.StringIO(report_of("csv", capsys)))
    assert tuple(header) == CSV_COLUMNS
    assert row[:4] == [f"'{NASTY}", "ERROR", "false", "NOT_SAFETENSORS"]


class Reader(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_a_name_as_text_and_runs_nothing(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader()
    reader.feed(report_of("html", capsys))
    assert NASTY in reader.text
    assert "NOT_SAFETENSORS" in reader.text
    assert "script" not in reader.tags
    assert reader.tags.count("tr") == 2


def test_sarif_and_junit_name_each_file(loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [result] = json.loads(report_of("sarif", capsys))["runs"][0]["results"]
    assert result["ruleId"] == "refused"
    suite = ElementTree.fromstring(report_of("junit", capsys))[0]
    assert suite.get("name") == "loragate scan"
    assert suite.get("errors") == "1"


@pytest.mark.parametrize("form", ["table", "json", "sarif", "junit", "html", "csv"])
def test_a_name_that_is_no_utf8_stops_no_report(loras: Path, tmp_path: Path, form: str) -> None:
    odd = os.fsdecode(b"odd\xff.pt")
    Path(odd).write_bytes(b"\x80\x02")
    out = tmp_path / "report"
    assert scan("--format", form, "--output", out, odd) == 3
    text = out.read_bytes().decode("utf-8")
    assert "odd" in text
    if form == "json":
        assert json.loads(text)["file"] == odd
    if form == "sarif":
        assert "odd%FF.pt" in text


def test_output_takes_the_report_and_people_see_a_table(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_of("json", capsys, "--output", "report.json").startswith("FILE")
    [line] = Path("report.json").read_text().splitlines()
    assert json.loads(line)["file"] == NASTY
    assert report_of("table", capsys, "--output", "report.txt", "--quiet") == ""
    assert Path("report.txt").read_text().startswith("FILE")


def test_quiet_says_errors_alone_and_verbose_what_is_used(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(".", "--quiet", "--include", "one.pt") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.partition(": W")[0] for line in printed.err.splitlines()] == ["loragate: one.pt"]
    assert scan(".", "--verbose", "--include", "one.pt") == 3
    said = capsys.readouterr().err
    for line in ("settings: none", "policy: the one that ships", "passed over: card.md"):
        assert f"loragate: {line}" in said
    assert "1 file: 1 ERROR" in said


def test_a_terminal_shows_progress_and_colours_unless_the_user_wants_none(loras: Path) -> None:
    code, seen = at_a_terminal("one.pt", home=loras)
    assert "\x1b[K1/1 one.pt" in seen
    assert "\x1b[31mERROR" in seen
    assert code == 3
    assert "\x1b[31m" not in at_a_terminal("one.pt", home=loras, NO_COLOR="1")[1]


def test_settings_are_found_upwards_and_the_command_line_wins(
    loras: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (loras / ".loragate.toml").write_text(
        '[scan]\nexclude = ["backup/*"]\nformat = "json"\npolicy = "rules/policy.yaml"\n'
    )
    monkeypatch.chdir(loras / "deep")
    assert scan("..", "--verbose") == 3
    said = capsys.readouterr().err
    assert f"--policy: {loras}/rules/policy.yaml is no file" in said
    (loras / "rules").mkdir()
    (loras / "rules" / "policy.yaml").write_text("")
    assert scan("..", "--verbose") == 3
    printed = capsys.readouterr()
    assert f"settings: {loras}/.loragate.toml" in printed.err
    assert "passed over: ../backup/old.ckpt" in printed.err
    assert all(json.loads(line)["verdict"] is None for line in printed.out.splitlines())
    assert scan("..", "--format", "csv", "--exclude", "*.bin") == 3
    printed = capsys.readouterr()
    assert printed.out.startswith("file,verdict")
    assert f"{loras}/.loragate.toml sets policy; --no-settings reads no such file." in printed.err
    assert scan("..") == 3
    assert f"{loras}/.loragate.toml sets exclude, policy;" in capsys.readouterr().err
    assert scan("..", "--settings", "../.loragate.toml") == 3
    assert " sets " not in capsys.readouterr().err
    assert scan("..", "--no-settings") == 3
    assert capsys.readouterr().out.startswith("FILE")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[scan]\nfail_on = 'block'", "fail_on is no setting; did you mean fail-on?"),
        ("[scan]\nfail-on = 'never'", "fail-on has to be one of review, block."),
        ("[scan]\nexclude = '*.pt'", "exclude has to be a list of texts"),
        ("[scan]\nstrength = 'strong'", "strength has to be a number."),
        ("[scan]\nthreads = 0", "threads '0' is not a positive whole number."),
        ("[scan]\nallow-empty = 1", "allow-empty has to be true or false."),
        ("[scan]\nbase = ''", "base has to be a text in quotes"),
        ("[sacn]\n", "there is no [sacn]; settings stand in [scan]."),
        ("scan = 1", "[scan] has to be a table."),
        ("[scan", "is no TOML"),
    ],
)
def test_a_wrong_setting_names_file_setting_and_remedy(
    loras: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (loras / ".loragate.toml").write_text(text)
    assert scan(".") == 3
    err = capsys.readouterr().err
    assert said in err
    assert f"{loras}/.loragate.toml" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to somebody else needs root")
def test_settings_that_somebody_else_put_there_are_not_read_unasked(
    loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (loras / ".loragate.toml").write_text("[scan]\nallow-empty = true\n")
    os.chown(loras / ".loragate.toml", 12345, 12345)
    assert scan("card.md") == 3
    assert "belongs to another user and is not read unasked" in capsys.readouterr().err
    assert scan("card.md", "--settings", ".loragate.toml") == 0
    assert scan("card.md", "--no-settings") == 3


def test_the_help_names_every_option_and_loads_no_network(loras: Path) -> None:
    script = (
        "import sys\nfrom loragate.cli.parser import build_parser\n"
        "text = build_parser()._subparsers._group_actions[0].choices['scan'].format_help()\n"
        "print(text); sys.exit('grpc' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    for option in ("--include", "--base", "--fail-on", "--calibration", "--settings", "hf://"):
        assert option in done.stdout
