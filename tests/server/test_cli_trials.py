"""From a base model alone to a calibration and its error rates: `calibrate --train`, `evaluate`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from loragate_server.audit.calibration import load_calibration
from testkit.scribbled import png, scribbled_library, scribbled_things
from testkit.servers import forked_command
from testkit.tiny_models import tiny_pipeline

FEW_STEPS = ("--steps", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model of SDXL's shape, a library of two concepts, and subjects."""
    place = tmp_path_factory.mktemp("own-model")
    tiny_pipeline("sdxl").save_pretrained(place / "model")
    scribbled_library(place / "library").remove("few")
    scribbled_things(place / "things", 12)
    (place / "loragate.yaml").write_text(
        f"base_models: [{{name: tiny, folder: {place / 'model'}}}]\n"
        f"library: {place / 'library'}\nstate_dir: {place / 'state'}\nthreads: 1\n"
    )
    return place


def run(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    return forked_command(
        [*map(str, arguments), "--config", str(place / "loragate.yaml")],
        environment | {"COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def calibrated(place: Path) -> Path:
    made = run(
        place,
        "calibrate",
        *("--train", 20, "--learned", 2, *FEW_STEPS),
        *("--subjects", place / "things"),
    )
    assert made.returncode == 0, made.stderr
    assert "20 harmless and 2 learning adapters: about 2 steps" in made.stderr
    assert "20 harmless adapters share 8 subjects" in made.stderr
    assert "20 harmless adapters, 2 learned" in made.stdout
    return place


def test_a_calibration_rests_on_adapters_that_were_trained_on_the_base_model(
    calibrated: Path,
) -> None:
    made = load_calibration(calibrated / "state" / "calibrations" / "tiny.json")
    assert (len(made.harmless), [one.learned for one in made.learned]) == (
        20,
        [("mascot",), ("rival",)],
    )
    files = list((calibrated / "state" / "trials" / "adapters").rglob("*.safetensors"))
    assert len(files) == 22


def test_an_evaluation_writes_a_page_in_each_language_and_the_numbers(calibrated: Path) -> None:
    files = set((calibrated / "state" / "trials" / "adapters").rglob("*.safetensors"))
    made = run(
        calibrated,
        "evaluate",
        *("--learned", 1, "--harmless", 3, *FEW_STEPS),
        *("--subjects", calibrated / "things", "--out", calibrated / "rates"),
    )
    assert made.returncode in (0, 1), made.stderr
    assert "mascot: blocked" in made.stdout
    assert "promised 1.0%" in made.stdout
    facts = json.loads((calibrated / "rates" / "evaluation.json").read_text())
    assert facts["found"]["blocked"]["of"] == 2
    assert facts["false_blocks"]["of"] == 3
    assert [one["learned"] for one in facts["adapters"][3:]] == [["mascot"], ["rival"]]
    assert facts["not_tried"] == []
    trained = {path.name for path in files}
    assert not trained & {one["file"] for one in facts["adapters"]}
    calibration = load_calibration(calibrated / "state" / "calibrations" / "tiny.json")
    assert facts["calibration"]["digest"] == calibration.digest
    known = {one.sha256 for one in (*calibration.harmless, *calibration.learned)}
    assert not known & {one["sha256"] for one in facts["adapters"]}
    for language, word in (("en", "Blocked by mistake"), ("ja", "誤ってブロックされた割合")):
        page = (calibrated / "rates" / f"evaluation.{language}.html").read_text()
        assert f'<html lang="{language}">' in page
        assert word in page
        assert facts["base_model"]["digest"] in page


def test_an_evaluation_without_a_calibration_says_how_to_make_one(
    place: Path, tmp_path: Path
) -> None:
    refused = run(place, "evaluate", "--state-dir", tmp_path, "--out", tmp_path / "rates")
    assert refused.returncode == 3
    assert "calibrate --train 150 --learned 40" in refused.stderr


def test_an_evaluation_whose_pages_cannot_be_written_trains_nothing(
    calibrated: Path, tmp_path: Path
) -> None:
    (tmp_path / "rates").touch()
    refused = run(calibrated, "evaluate", "--out", tmp_path / "rates")
    assert refused.returncode == 2
    assert "is a file; name a folder for the pages" in " ".join(refused.stderr.split())


def test_how_long_it_would_take_is_measured_and_nothing_is_kept(
    place: Path, tmp_path: Path
) -> None:
    told = run(
        place,
        *("calibrate", "--train", 99, "--learned", 2, "--steps", 50, "--estimate"),
        *("--draw-steps", 1, "--state-dir", tmp_path),
    )
    assert told.returncode == 0, told.stderr
    assert re.search(r"^984 pictures to draw, \d+\.\d\d s each$", told.stdout, re.MULTILINE)
    assert re.search(r"^5050 steps to train, \d+\.\d{3} s each$", told.stdout, re.MULTILINE)
    assert re.search(r"^about \d+\.\d h for that", told.stdout, re.MULTILINE)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("calibrate",), 2, "name a folder of harmless adapters, or a number to --train"),
        (("calibrate", "--train", 5), 2, "5 harmless adapters are too few; train 20 or more"),
        (("calibrate", "--train", -5), 2, "--train"),
        (("calibrate", "--train", 20, "--plot", "a.png"), 2, "--plot draws what is missed"),
        (("calibrate", "--train", 20, "--subjects", "gone"), 1, "gone is no folder"),
        (("calibrate", "--train", 20, "--prompt", "cat"), 1, "has to hold {} once"),
        (
            ("calibrate", "--train", 20, "--learned", 2, "--pictures", "wrong"),
            1,
            "'no-concept' is no forbidden concept",
        ),
        (("calibrate", "things", "--estimate"), 2, "--estimate is about what is trained"),
        (("calibrate", "things", "--batch", 0), 2, "--batch is about what is trained; give --tr"),
        (
            ("calibrate", "things", "--steps", 9, "--nouns", "gone", "--learned", 0),
            2,
            "--nouns, --steps are about what is trained; give --train",
        ),
        (("evaluate", "--learned", 0, "--harmless", 0), 2, "there is nothing to measure"),
        (("evaluate", "--base-model", "other"), 3, "there are tiny"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    code: int,
    told: str,
) -> None:
    (wrong := tmp_path / "wrong" / "no-concept").mkdir(parents=True)
    (wrong / "a.png").write_bytes(png(1))
    found = [tmp_path / one if one == "wrong" else one for one in arguments]
    refused = run(place, *found, "--state-dir", tmp_path / "state")
    assert (refused.returncode, told in refused.stderr) == (code, True), refused.stderr
    assert not list(tmp_path.rglob("*.safetensors"))
