"""What is refused leaves nothing behind, and says where it would have been."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loragate_server.app.folders import changeable_library
from loragate_server.cli.command import application
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.config.sources import load_config
from loragate_server.files import lock

PICTURES = str(next((EMBEDDED_LIBRARY / "pictures").iterdir()))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("remove", "nothing-here"), "No concept 'nothing-here'"),
        (("add", "Not An Id", PICTURES), "id is not valid"),
        (("add", "bomb", PICTURES), "exists already"),
        (("add", "mascot", __file__), "cannot be read"),
        (("bank", "--from", str(Path(__file__).parent / "gone")), "is no folder"),
    ],
)
def test_a_change_that_is_refused_leaves_no_copy_of_the_library_that_ships(
    arguments: tuple[str, ...], told: str, state: Path
) -> None:
    refused = CliRunner().invoke(application, ["concepts", *arguments])
    assert refused.exit_code in (1, 3)
    assert told in refused.stderr
    assert not (state / "library").exists()


def test_a_change_that_is_made_is_made_to_a_copy(state: Path) -> None:
    done = CliRunner().invoke(application, ["concepts", "remove", "bomb"])
    assert done.exit_code == 0, done.output
    left = {one.concept_id for one in changeable_library(load_config()).forbidden}
    assert (state / "library").is_dir()
    assert "bomb" not in left


def test_a_place_where_no_library_can_be_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(application, ["concepts", "init", str(tmp_path / "file")])
    assert refused.exit_code == 3
    assert "cannot be made: File exists; name a folder that is empty" in refused.stderr


def test_a_decision_log_that_another_server_writes_is_told_by_its_whole_path(state: Path) -> None:
    state.mkdir()
    with (state / "decisions.jsonl").open("a") as other:
        lock(other)
        command = ["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        refused = CliRunner().invoke(application, command)
    assert refused.exit_code == 3
    assert f"{state / 'decisions.jsonl'}: The decision log" in refused.stderr
