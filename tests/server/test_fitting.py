"""A configured calibration that cannot fit is refused before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loragate_server.app.preflight import problems
from loragate_server.app.startup import serve_bases
from loragate_server.audit.kept import kept_file
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import (
    EMBEDDED_CALIBRATION,
    EMBEDDED_LIBRARY,
    EMBEDDED_PIPELINE,
    Config,
    StartError,
)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The calibration that ships, with what was kept beside it."""
    file = tmp_path / "own.json"
    shutil.copy(EMBEDDED_CALIBRATION, file)
    shutil.copy(kept_file(EMBEDDED_CALIBRATION), kept_file(file))
    return file


@pytest.fixture
def calibrated(tmp_path: Path, copied: Path) -> Config:
    """A calibration is configured; the library is a copy that may be changed."""
    shutil.copytree(EMBEDDED_LIBRARY, tmp_path / "library")
    entry = {"name": "own", "folder": str(EMBEDDED_PIPELINE), "calibration": str(copied)}
    settings = {"base_models": [entry], "library": str(tmp_path / "library")}
    return Config.model_validate({"state_dir": str(tmp_path / "state"), **settings})


def _change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_calibration_follows_forbidden_concepts_and_no_other_neutral_bank(
    calibrated: Config,
) -> None:
    library = ConceptLibrary.open(calibrated.library_folder)
    assert problems(calibrated) == ()
    library.remove(library.forbidden[0].concept_id)
    assert problems(calibrated) == ()
    library.remove(library.neutral[0].concept_id)
    [line] = problems(calibrated)
    assert "own.json does not fit: the neutral bank has changed. Make a new one with" in line
    with pytest.raises(StartError, match="the neutral bank has changed"):
        serve_bases(calibrated, ConceptLibrary.open(calibrated.library_folder), _loads_nothing)


def _loads_nothing(stage: str, _: float) -> None:
    raise AssertionError(stage)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: _change(file, format_version=4), "of another version of loragate, whose"),
        (lambda file: file.write_text("[]"), "own.json is no calibration"),
        (lambda file: kept_file(file).unlink(), "nothing was kept beside"),
        (lambda file: _change(file, learned=[]), "kept beside another calibration"),
        (
            lambda file: _change(
                file, binding=json.loads(file.read_text())["binding"] | {"engine_version": "1"}
            ),
            "which measured otherwise",
        ),
    ],
)
def test_a_calibration_that_cannot_fit_is_told_before_a_model_is_loaded(
    calibrated: Config, copied: Path, spoil: Callable[[Path], object], told: str
) -> None:
    library = ConceptLibrary.open(calibrated.library_folder)
    library.remove(library.forbidden[0].concept_id)
    spoil(copied)
    [line] = problems(calibrated)
    assert line.startswith(f"base model own: the calibration {copied} does not fit: ")
    assert told in line
