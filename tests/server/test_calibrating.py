"""Which calibration a server gets for a library that is not the one it was made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from loragate_server.app.calibrating import calibration_notes, uncalibrated
from loragate_server.app.served import served_states
from loragate_server.app.startup import serve_bases
from loragate_server.audit.calibration import load_calibration
from loragate_server.audit.kept import kept_file, open_kept, save_kept
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import EMBEDDED_CALIBRATION, EMBEDDED_LIBRARY, Config
from loragate_server.gate.bases import BaseRegistry
from loragate_server.testing import SHARED_CACHE

ADDED = Concept("tower", "Tower", "thing", "low", "forbidden", ("a tower",))


@pytest.fixture
def library(tmp_path: Path) -> ConceptLibrary:
    """The embedded library and one concept more, with pictures of a neutral one."""
    folder = Path(shutil.copytree(EMBEDDED_LIBRARY, tmp_path / "library"))
    library = ConceptLibrary.open(folder)
    pictures = [path.read_bytes() for path in library.neutral[0].picture_files[:3]]
    return library.add(ADDED, pictures)


@pytest.fixture
def config(tmp_path: Path, library: ConceptLibrary) -> Config:
    return Config(state_dir=tmp_path / "state", library=library.folder, cache_dir=SHARED_CACHE)


@pytest.fixture
def own(config: Config) -> Path:
    """A calibration in the state directory, with nothing beside it."""
    file = config.own_calibration("emoji-tiny")
    file.parent.mkdir(parents=True)
    return Path(shutil.copy(EMBEDDED_CALIBRATION, file))


def serve(config: Config, library: ConceptLibrary) -> BaseRegistry:
    return BaseRegistry("emoji-tiny", serve_bases(config, library))


def test_the_embedded_calibration_follows_a_concept_that_was_added(
    config: Config, library: ConceptLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    bases = serve(config, library)
    made = bases.get().engine.materials.calibration
    assert made is not None
    assert made.digest != load_calibration(EMBEDDED_CALIBRATION).digest
    assert len(made.harmless) == 150
    assert {*made.harmless[0].screen} == {one.concept_id for one in library.forbidden}
    assert uncalibrated(bases) == {"emoji-tiny": ()}
    assert calibration_notes(bases) == {"calibration of emoji-tiny": "ok"}
    assert served_states(config, bases)[0].calibration == "in_force"
    assert "uncalibrated" not in caplog.text
    kept = open_kept(kept_file(EMBEDDED_CALIBRATION))
    assert kept.calibration == load_calibration(EMBEDDED_CALIBRATION).digest
    assert kept.bank == bases.get().engine.materials.bank


def test_where_nothing_was_kept_the_added_concept_alone_is_uncalibrated(
    config: Config, library: ConceptLibrary, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedded = ConceptLibrary.open(EMBEDDED_LIBRARY)
    before = serve(config.model_copy(update={"library": embedded.folder}), embedded)
    save_kept(kept_file(own), load_calibration(own).digest, before.get().engine.materials, {})
    assert "uncalibrated" not in caplog.text
    bases = serve(config, library)
    assert uncalibrated(bases) == {"emoji-tiny": ("tower",)}
    assert calibration_notes(bases) == {"calibration of emoji-tiny": "uncalibrated: tower"}
    assert served_states(config, bases)[0].calibration == "stale"
    assert "base model emoji-tiny: tower is uncalibrated" in caplog.text


def test_a_calibration_of_an_older_format_is_left_out_as_after_an_upgrade(
    config: Config, library: ConceptLibrary, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = json.loads(own.read_bytes())
    own.write_text(json.dumps(values | {"format_version": values["format_version"] - 1}))
    bases = serve(config, library)
    assert not bases.get().engine.calibrated
    assert served_states(config, bases)[0].calibration == "stale"
    assert "base model emoji-tiny is uncalibrated" in caplog.text
    assert "calibrate --again FILE" in caplog.text


def test_a_calibration_from_before_anything_was_kept_is_left_out(
    config: Config, library: ConceptLibrary, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bases = serve(config, library)
    assert not bases.get().engine.calibrated
    assert calibration_notes(bases) == {"calibration of emoji-tiny": "uncalibrated"}
    assert served_states(config, bases)[0].calibration == "stale"
    assert "base model emoji-tiny is uncalibrated: the calibration was made for library" in (
        caplog.text
    )
    assert own.exists()
