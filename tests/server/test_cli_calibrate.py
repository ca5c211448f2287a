"""`loragate-server calibrate` on a tiny model of the real class, with real files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import pstdev

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loragate_server.app.folders import served_library
from loragate_server.app.startup import serve_bases
from loragate_server.audit.calibration import load_calibration
from loragate_server.audit.kept import kept_file, open_kept
from loragate_server.config.sources import load_config
from testkit.scribbled import scribbled_library
from testkit.servers import forked_command
from testkit.tiny_models import tiny_pipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a tiny base model, 24 harmless adapters and 3 that are labelled."""
    place = tmp_path_factory.mktemp("calibrate")
    tiny_pipeline("sd").save_pretrained(place / "model")
    library = scribbled_library(place / "library")
    (place / "loragate.yaml").write_text(
        f"base_models: [{{name: tiny, folder: {place / 'model'}}}]\n"
        f"library: {library.folder}\nstate_dir: {place / 'state'}\nthreads: 1\n"
    )
    (place / "harmless").mkdir()
    (place / "spellings" / "below").mkdir(parents=True)
    for index in range(24):
        file = place / "harmless" / f"{index:02}.safetensors"
        adapter(file, index)
        ending = (".SAFETENSORS", ".sft", ".SFT")[index % 3]
        shutil.copy(file, place / "spellings" / "below" / f"{index:02}{ending}")
    for index in range(3):
        adapter(place / f"learned-{index}.safetensors", 100 + index)
    lines = [f"learned-{index}.safetensors,mascot" for index in range(3)]
    (place / "learned.csv").write_text("\n".join(lines) + "\n")
    return place


def adapter(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    tensors = {}
    for name in (f"{block}.attn1.to_q", f"{block}.attn2.to_q"):  # the latter reads text
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, 32, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(32, 2, generator=generator) * 0.1
    save_file(tensors, path)


def calibrate(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    return forked_command(
        ["calibrate", *map(str, arguments), "--config", str(place / "loragate.yaml")],
        environment | {"COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def done(place: Path) -> subprocess.CompletedProcess[str]:
    """A calibration is made, for all that comes after it."""
    return calibrate(
        place,
        place / "harmless",
        *("--learned", place / "learned.csv"),
        *("--plot", place / "rates.png"),
    )


@pytest.fixture
def made(place: Path, done: subprocess.CompletedProcess[str]) -> Path:
    """Its file, which no test changes."""
    assert done.returncode == 0, done.stderr
    return place / "state" / "calibrations" / "tiny.json"


def test_a_folder_becomes_a_calibration_with_a_table_and_a_plot(
    place: Path, done: subprocess.CompletedProcess[str]
) -> None:
    assert done.returncode == 0, done.stderr
    made = load_calibration(place / "state" / "calibrations" / "tiny.json")
    assert len(made.harmless) == 24
    assert {one.learned for one in made.learned} == {("mascot",)}
    assert "learned missed" in done.stdout
    assert "24 harmless adapters, 3 learned" in done.stdout
    kept = open_kept(kept_file(place / "state" / "calibrations" / "tiny.json"))
    assert kept.calibration == made.digest
    assert all(kept.has(one.sha256) for one in made.harmless)
    assert "MB, for concepts that come later" in done.stdout
    assert (place / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_kept_is_measured_again_without_a_file_as_after_an_upgrade(
    place: Path, made: Path
) -> None:
    older = place / "older.json"
    values = json.loads(made.read_text())
    # one of an earlier version cannot be loaded, and is read here all the same
    values |= {"format_version": 1, "binding": {**values["binding"], "engine_version": "1"}}
    older.write_text(json.dumps(values))
    tensors = load_file(kept_file(made))
    with safe_open(kept_file(made), framework="pt") as file:
        head = json.loads(file.metadata()["kept"])
    head["calibration"] = hashlib.sha256(older.read_bytes()).hexdigest()
    save_file(tensors, kept_file(older), metadata={"kept": json.dumps(head)})
    # a file that was kept is no further adapter
    (place / "one").mkdir(exist_ok=True)
    adapter(place / "one" / "again.safetensors", 0)
    out = place / "again.json"
    learned = ("--learned", place / "learned.csv")
    again = calibrate(place, place / "one", "--again", older, *learned, "--out", out)
    assert again.returncode == 0, again.stderr
    before, after = load_calibration(made), load_calibration(out)
    assert {one.sha256 for one in after.harmless} == {one.sha256 for one in before.harmless}
    spread = pstdev(value for one in before.harmless for value in one.screen.values())
    shares = [told[1] for one in before.harmless for told in one.named.values()]
    for one in after.harmless:
        [was] = [other for other in before.harmless if other.sha256 == one.sha256]
        assert one.screen == pytest.approx(was.screen, abs=0.2 * spread)
        now, then = ([told[1] for told in each.named.values()] for each in (one, was))
        assert now == pytest.approx(then, abs=0.3 * pstdev(shares))
    assert pstdev(shares) > 0
    # rounded once and not twice: the numbers are those that were kept
    name = f"{before.harmless[1].sha256}.codes"
    assert torch.equal(load_file(kept_file(out))[name], tensors[name])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: made.unlink(), "cannot be read"),
        (lambda made: made.write_text("[]"), "is no calibration"),
        (lambda made: made.write_text('{"binding": {"base_digest": "0"}}'), "was made for base"),
        (lambda made: made.write_text('{"binding": {"base_digest": 7}}'), "was made for base"),
        (lambda made: made.write_text(made.read_text() + "\n"), "beside another calibration"),
        (lambda made: kept_file(made).unlink(), "nothing was kept"),
        (lambda made: kept_file(made).write_bytes(b"{}"), "is damaged"),
    ],
)
def test_what_was_kept_of_something_else_is_refused(
    place: Path, made: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    copy = tmp_path / "tiny.json"
    shutil.copy(made, copy)
    shutil.copy(kept_file(made), kept_file(copy))
    spoil(copy)
    done = calibrate(place, "--again", copy, "--learned", 0, "--out", tmp_path / "out.json")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_nothing_of_the_one_of_before_is_lost_by_making_it_again(
    place: Path, made: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.json"
    shutil.copy(made, file)
    shutil.copy(kept_file(made), kept_file(file))
    for words, said in (
        (("--no-keep",), "leave --no-keep out"),
        ((), "knew 3 adapters that learned a concept"),
    ):
        refused = calibrate(place, "--again", file, "--out", file, *words)
        assert refused.returncode == 2
        assert said in " ".join(refused.stderr.split())
        assert file.read_bytes() == made.read_bytes()
        assert kept_file(file).read_bytes() == kept_file(made).read_bytes()
    done = calibrate(place, "--again", file, "--out", file, "--learned", 0)
    assert done.returncode == 0, done.stderr
    before = tmp_path / "tiny.before-1.json"
    assert str(before) in done.stdout
    assert before.read_bytes() == made.read_bytes()
    assert open_kept(kept_file(before)).calibration == load_calibration(before).digest
    assert len(load_calibration(file).harmless) == 24


def test_a_calibration_that_is_there_already_is_kept_under_another_name(
    place: Path, made: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.json"
    shutil.copy(made, file)  # without what was kept beside it
    done = calibrate(place, place / "spellings", "--out", file)
    assert done.returncode == 0, done.stderr
    before = tmp_path / "tiny.before-1.json"
    assert f"{before}: the one of before" in done.stdout
    assert before.read_bytes() == made.read_bytes()
    assert not kept_file(before).exists()


def test_it_is_written_where_the_server_looks_and_no_adapter_is_kept_where_that_is_not_wanted(
    place: Path, tmp_path: Path
) -> None:
    configured = tmp_path / "configured.json"
    config = tmp_path / "loragate.yaml"
    text = (place / "loragate.yaml").read_text()
    config.write_text(text.replace("}]", f", calibration: {configured}}}]", 1))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    words = ["calibrate", str(place / "harmless"), "--no-keep", "--config", str(config)]
    done = forked_command(words, environment | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "come later" not in done.stdout
    kept, found = open_kept(kept_file(configured)), load_calibration(configured)
    assert len(found.harmless) == 24
    assert not any(kept.has(one.sha256) for one in found.harmless)
    assert set(kept.concepts) == set(found.harmless[0].screen)


@pytest.mark.usefixtures("made")
def test_the_server_uses_the_calibration_that_was_made(place: Path) -> None:
    config = load_config(place / "loragate.yaml")
    [served] = serve_bases(config, served_library(config))
    assert served.engine.calibrated


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nothing-here",), 1, "holds no .safetensors file"),
        (("few",), 1, "2 harmless adapters are too few"),
        (("broken",), 1, "broken.safetensors"),
        (("foreign",), 1, "match no layer of tiny"),
        (("biased",), 1, "or give --no-keep"),
        (("harmless", "--base-model", "other"), 3, "there are tiny"),
        (("harmless", "--learned", "wrong.csv"), 1, "wrong.csv:1: write"),
        (("harmless", "--learned", "unknown.csv"), 1, "'kitten' is no forbidden concept"),
        (("harmless", "--learned", "empty.csv"), 1, "empty.csv names no adapter"),
        (("harmless", "--learned", "absent.csv"), 3, "absent.csv cannot be read"),
        (
            ("harmless", "--learned", "both.csv"),
            1,
            "07.safetensors learned a concept, and is among",
        ),
        (("twice",), 1, "19 harmless adapters are too few; give or --train 1 more"),
        (("twice", "--learned", "3"), 1, "19 harmless adapters are too few; give or --train 1"),
    ],
)
def test_what_cannot_be_used_is_named(
    place: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    for index in range(2):
        (place / "few").mkdir(exist_ok=True)
        adapter(place / "few" / f"{index}.safetensors", index)
    for name in ("broken", "foreign", "biased", "nothing-here"):
        (place / name).mkdir(exist_ok=True)
    for name in ("broken", "foreign", "biased"):  # too few are refused before any is read
        shutil.copytree(place / "harmless", place / name, dirs_exist_ok=True)
    (place / "empty.csv").write_text("\n")
    (place / "broken" / "broken.safetensors").write_bytes(b"\x10" + bytes(7) + b"not a header")
    save_file(
        {
            "unet.other.to_q.lora_A.weight": torch.ones(2, 32),
            "unet.other.to_q.lora_B.weight": torch.ones(32, 2),
        },
        place / "foreign" / "foreign.safetensors",
    )
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file(
        {
            f"{layer}.lora_A.weight": torch.ones(2, 32),
            f"{layer}.lora_B.weight": torch.ones(32, 2),
            f"{layer}.lora_B.bias": torch.ones(32),
        },
        place / "biased" / "biased.safetensors",
    )
    (place / "wrong.csv").write_text("learned-0.safetensors\n")
    (place / "unknown.csv").write_text("learned-0.safetensors,kitten\n")
    (place / "both.csv").write_text(
        "learned-0.safetensors,mascot\nharmless/07.safetensors,mascot\n"
    )
    (place / "twice").mkdir(exist_ok=True)
    for index in range(20):
        adapter(place / "twice" / f"{index}.safetensors", max(1, index))
    done = calibrate(
        place,
        *(each if each[0] == "-" or each in ("other", "3") else place / each for each in arguments),
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "rates.png"), "--plot draws what is missed, so it needs --learned"),
        (("--learned", "0", "--plot", "rates.png"), "it needs --learned with some"),
        (("--learned", "learned.csv", "--plot", "rates.doc"), "has to end with .png or .svg"),
        (("--learned", "learned.csv", "--plot", "absent/rates.png"), "there is no folder"),
    ],
)
def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_read(
    place: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = calibrate(
        place,
        place / "no-such-folder",
        *(each if each.startswith(("-", "0")) else place / each for each in arguments),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
