from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from loragate_server.audit.evidence import Evidence
from loragate_server.cli.command import application
from loragate_server.config.sources import ignored_environment
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import REPORT

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "scripts" / "report_pictures.py"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, the database of this test, and files written to its folder."""
    for name in ignored_environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def verdict(
    made: dict[str, tuple[Evidence, str, bool]], recorded: Callable[..., Verdict]
) -> Verdict:
    return recorded(*made["block"])


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(application, ["report", *(str(argument) for argument in arguments)])


def test_a_report_is_one_file_named_after_the_decision(verdict: Verdict, tmp_path: Path) -> None:
    result = run(verdict.decision_id)
    assert result.exit_code == 0, result.output
    name = f"loragate-{verdict.decision_id}.html"
    assert result.stdout == f"{name}: BLOCK, en\n"
    assert (tmp_path / name).read_text(encoding="utf-8") == render(verdict)


def test_language_and_file_can_be_chosen(verdict: Verdict, tmp_path: Path) -> None:
    file = tmp_path / "hokoku.html"
    file.write_text("an older one")
    result = run(verdict.decision_id, "--language", "ja", "--out", file)
    assert result.stdout == f"{file}: BLOCK, ja\n"
    assert file.read_text(encoding="utf-8") == render(verdict, "ja")


def test_a_report_can_go_to_standard_output(verdict: Verdict, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert run(verdict.decision_id, "--out", "-").stdout == render(verdict)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_decision_is_a_failure(verdict: Verdict, tmp_path: Path) -> None:
    result = run("0" * 32)
    assert result.exit_code == 3
    assert f"No decision {'0' * 32!r} is recorded." in result.stderr
    assert not list(tmp_path.glob("*.html"))


def test_an_unknown_language_is_wrong_usage(verdict: Verdict) -> None:
    assert run(verdict.decision_id, "--language", "fr").exit_code == 2


def test_a_database_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    result = run("0" * 32, "--state-dir", tmp_path / "nowhere")
    assert result.exit_code == 3
    assert "loragate.sqlite3 does not exist" in result.stderr


def test_a_file_that_cannot_be_written_is_a_failure(verdict: Verdict, tmp_path: Path) -> None:
    result = run(verdict.decision_id, "--out", tmp_path / "missing" / "report.html")
    assert result.exit_code == 3
    assert "No such file or directory" in result.stderr


def test_a_decision_that_cannot_be_read_is_a_failure(verdict: Verdict, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "loragate.sqlite3") as connection:
        connection.execute("UPDATE audits SET payload = ?", (json.dumps({"payload_version": 9}),))
    connection.close()
    result = run(verdict.decision_id)
    assert result.exit_code == 3
    assert "a stored decision cannot be read" in result.stderr


def picture(verdict: Verdict, folder: Path, language: str, *options: str) -> Image.Image:
    """The report as a real browser shows it."""
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        pytest.skip("chromium is not installed")
    page = folder / f"page-{language}.html"
    page.write_text(render(verdict, language), encoding="utf-8")
    command = [sys.executable, str(PICTURES), "--out", str(folder), *options, str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / f"page-{language}.png") as opened:
        return opened.convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    found = image.getcolors(image.width * image.height) or []
    return {colour for _, colour in found if isinstance(colour, tuple)}


@pytest.mark.parametrize("language", REPORT.languages)
def test_a_browser_shows_the_whole_page(verdict: Verdict, tmp_path: Path, language: str) -> None:
    shown = picture(verdict, tmp_path, language)
    assert shown.width == 1200
    assert 2500 < shown.height < 6000
    assert {(0xA8, 0x20, 0x1A), (0xB5, 0x45, 0x0B)} <= colours(shown), "verdict and hot spot"


def test_a_phone_that_is_dark_gets_a_dark_page(verdict: Verdict, tmp_path: Path) -> None:
    shown = picture(verdict, tmp_path, "en", "--width", "390", "--dark")
    assert shown.width == 390
    assert {(0xFF, 0x8D, 0x85), (0xF5, 0xA5, 0x5E)} <= colours(shown), "verdict and hot spot"
    assert shown.getpixel((1, shown.height - 1)) == (0x14, 0x17, 0x1A)


def test_pictures_without_a_browser_say_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(PICTURES), "--out", str(tmp_path), "page.html"]
    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "chromium is not on PATH" in done.stderr
