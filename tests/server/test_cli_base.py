"""`loragate-server base`: base models come into a configuration file, checked before."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from loragate_server.cli.command import application
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.config.sources import ignored_environment, load_config
from testkit.tiny_models import tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "sdxl"
    tiny_pipeline("sdxl").save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ignored_environment(), "LORAGATE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")


def base(*arguments: str | Path) -> Result:
    return CliRunner().invoke(application, ["base", *map(str, arguments)])


def test_a_base_model_is_written_into_a_new_configuration_file(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "loragate.yaml"
    added = base("add", "sdxl", "--from", model, "--device", "cpu", "--config", file)
    assert added.exit_code == 0, added.stderr
    assert "StableDiffusionXLPipeline (family sdxl)" in added.stderr
    assert "loaded on cpu as float32" in added.stderr
    [entry] = load_config(file).base_models
    assert (entry.name, entry.folder, entry.device, entry.dtype) == (
        "sdxl",
        model,
        "cpu",
        "float32",
    )


def test_what_a_configuration_file_says_besides_stays_with_its_comments(
    model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "loragate.yaml"
    before = (
        "# ours\nthreads: 2  # of four\nbase_models:\n  - name: first   # the old one\n"
        f"    folder: {model}\ngate: {{queue_limit: 7}}\n"
    )
    file.write_text(before)
    file.chmod(0o640)
    added = base("add", "second", "--from", model, "--no-load", "--device", "cpu", "-c", file)
    assert added.exit_code == 0, added.stderr
    after = file.read_text()
    assert set(before.splitlines()) <= set(after.splitlines())
    assert [one.name for one in load_config(file).base_models] == ["first", "second"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_without_a_file_the_lines_are_printed(model: Path) -> None:
    added = base("add", "sdxl", "--from", model, "--no-load", "--device", "cpu")
    assert added.exit_code == 0
    told = YAML(typ="safe").load(added.stdout)
    assert told["base_models"][0]["folder"] == str(model)
    assert "name one with --config" in added.stderr


def test_a_file_with_comments_alone_keeps_them(model: Path, tmp_path: Path) -> None:
    (file := tmp_path / "loragate.yaml").write_text("# nothing yet\n")
    assert base("add", "a", "--from", model, "--no-load", "-c", file).exit_code == 0
    assert file.read_text().startswith("# nothing yet\nbase_models:\n")


@pytest.mark.parametrize(
    ("written", "name", "told"),
    [
        ("base_models: [{name: sdxl, folder: FOLDER}]\n", "sdxl", "has a base model 'sdxl'"),
        ("", "two words", "name 'two words': String should match pattern"),
        ("threds: 3\n", "sdxl", "loragate.yaml:1: threds: no such setting"),
        ("[1, 2]\n", "sdxl", "has to be a mapping"),
    ],
)
def test_what_would_make_no_configuration_is_refused_and_nothing_changes(
    model: Path, tmp_path: Path, written: str, name: str, told: str
) -> None:
    file = tmp_path / "loragate.yaml"
    file.write_text(written.replace("FOLDER", str(model)))
    before = file.read_text()
    refused = base("add", name, "--from", model, "--no-load", "--config", file)
    assert refused.exit_code == 2, refused.stdout
    assert told in refused.stderr
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["loragate.yaml"]


def test_a_configuration_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    model: Path, tmp_path: Path
) -> None:
    refused = base("add", "sdxl", "--from", model, "-c", tmp_path / "missing" / "c.yaml")
    assert refused.exit_code == 2
    assert "is no folder that can be written; make it, or name another file" in refused.stderr
    assert "loading" not in refused.stderr


def test_a_folder_that_is_no_base_model_is_refused(model: Path, tmp_path: Path) -> None:
    refused = base("add", "sdxl", "--from", model / "unet", "-c", tmp_path / "c.yaml")
    assert refused.exit_code == 1
    assert "not of one of its parts" in refused.stderr
    assert not (tmp_path / "c.yaml").exists()


def test_a_model_that_cannot_be_measured_is_refused_when_it_is_loaded(
    model: Path, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline("sdxl")
    pipeline.scheduler.register_to_config(prediction_type="sample")
    pipeline.save_pretrained(tmp_path / "odd")
    refused = base("add", "odd", "--from", tmp_path / "odd", "--device", "cpu")
    assert refused.exit_code == 3
    assert "prediction_type is 'sample'" in refused.stderr


def test_the_list_shows_what_folders_hold(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "loragate.yaml"
    file.write_text(
        f"base_models: [{{name: good, folder: {model}}}, {{name: gone, folder: {tmp_path}/no}}]\n"
    )
    listed = base("list", "--json", "--config", file)
    assert listed.exit_code == 1
    good, gone = map(json.loads, listed.stdout.splitlines())
    assert (good["family"], good["calibration"], good["problem"]) == ("sdxl", "none", "")
    assert "there is no" in gone["problem"]
    assert f"base model gone: there is no {tmp_path}/no" in listed.stderr


def test_the_embedded_base_model_is_listed_with_its_calibration() -> None:
    listed = base("list")
    assert listed.exit_code == 0
    assert "emoji-tiny" in listed.stdout
    assert "none" not in listed.stdout


def test_a_calibration_that_does_not_fit_is_listed_with_why(tmp_path: Path) -> None:
    library = ConceptLibrary.open(shutil.copytree(EMBEDDED_LIBRARY, tmp_path / "library"))
    (file := tmp_path / "loragate.yaml").write_text(f"library: {library.folder}\n")
    assert "does not fit" not in base("list", "--config", file).stdout
    library.remove(library.neutral[0].concept_id)
    listed = base("list", "--config", file)
    assert listed.exit_code == 0
    told = " ".join(listed.stdout.split())
    assert "calibration.json (does not fit: the neutral bank has changed)" in told
    [facts] = map(json.loads, base("list", "--json", "--config", file).stdout.splitlines())
    assert facts["calibration"].endswith("calibration.json")
    assert facts["misfit"] == "the neutral bank has changed"
