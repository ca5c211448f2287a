"""The shipped pipeline, adapters trained on it, and training that goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from emoji_tiny.catalogue import FONT_PATH, FORBIDDEN
from emoji_tiny.progress import Checkpoint
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.train_lora import train_lora
from loragate_server.adapter.reference import StoredFile
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.intake.reader import read_adapter
from loragate_server.models import load_base_model

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "server" / "loragate_server" / "assets" / "emoji_tiny"
ADAPTERS = ROOT / "examples" / "adapters"


@pytest.fixture(autouse=True)
def _seed_of_its_own() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def load() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(ASSETS / "pipeline", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, prompt: str) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    [picture] = pipeline(prompt, num_inference_steps=4, generator=generator).images
    assert picture.size == (64, 64)
    return np.asarray(picture, dtype=np.float32)


def test_the_shipped_pipeline_draws_a_picture_by_its_prompt() -> None:
    pipeline = load()
    sun = draw(pipeline, "a picture of lemon on a blue background")
    assert sun.std() > 5, "the picture is blank"
    np.testing.assert_array_equal(sun, draw(pipeline, "a picture of lemon on a blue background"))
    assert np.abs(sun - draw(pipeline, "a picture of tomato on a black background")).mean() > 5


def test_everything_that_ships_is_small() -> None:
    shipped = [*ASSETS.rglob("*"), *ADAPTERS.rglob("*")]
    assert sum(path.stat().st_size for path in shipped if path.is_file()) < 40 * 2**20
    assert len(list(ADAPTERS.glob("*.safetensors"))) >= 6
    weights = load_file(ASSETS / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_the_shipped_library_is_the_catalogues() -> None:
    library = ConceptLibrary.open(ASSETS / "concepts")
    assert {one.concept_id for one in library.forbidden} == set(FORBIDDEN)
    assert len(library.neutral) >= 32
    for concept in library.forbidden:
        assert concept.severity == FORBIDDEN[concept.concept_id].severity
        assert len(concept.picture_files) >= 3


@pytest.mark.skipif(not FONT_PATH.exists(), reason="needs Debian's fonts-noto-color-emoji")
@pytest.mark.parametrize(
    ("file_format", "rank", "alpha"),
    [("diffusers", 4, 4.0), ("diffusers", 4, 8.0), ("kohya", 2, 4.0)],
)
def test_a_trained_adapter_is_loaded_by_diffusers(
    tmp_path: Path, file_format: str, rank: int, alpha: float
) -> None:
    file = tmp_path / "adapter.safetensors"
    recipe = LoraRecipe(
        "test",
        ("🎃",),
        rank=rank,
        alpha=alpha,
        steps=3,
        batch=2,
        pictures=4,
        file_format=file_format,
    )
    assert train_lora(ASSETS / "pipeline", recipe, file) > 0
    with safe_open(file, "pt") as opened:
        names = list(opened.keys())
    kohya = all(name.startswith("lora_unet_") for name in names)
    assert kohya == (file_format == "kohya")
    pipeline = load()
    before = draw(pipeline, "a picture")
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    [config] = pipeline.unet.peft_config.values()
    layers = [m for m in pipeline.unet.modules() if hasattr(m, "lora_A") and m.lora_A]
    assert len(layers) == len(names) // (3 if kohya else 2)
    assert config.r == rank
    [scale] = {value for layer in layers for value in layer.scaling.values()}
    assert scale == alpha / rank
    assert np.abs(draw(pipeline, "a picture") - before).max() > 0, "it has no effect"


@pytest.mark.skipif(not FONT_PATH.exists(), reason="needs Debian's fonts-noto-color-emoji")
def test_the_same_recipe_trains_the_same_adapter(tmp_path: Path) -> None:
    recipe = LoraRecipe("test", ("🎃",), rank=2, steps=2, batch=2, pictures=4, seed=9)
    files = [tmp_path / name / "a.safetensors" for name in ("one", "two")]
    for file in files:
        train_lora(ASSETS / "pipeline", recipe, file)
    first, second = map(load_file, files)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0)


class Training:
    """A small model, trained on noise as the real ones are."""

    def __init__(self, path: Path) -> None:
        self.model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        self.checkpoint = Checkpoint(path, self.model, optimizer, schedule)

    def run(self, until: int) -> None:
        for step in range(self.checkpoint.load(), until):
            loss = self.model(torch.randn(8, 4)).square().mean()
            self.checkpoint.optimizer.zero_grad()
            loss.backward()
            self.checkpoint.optimizer.step()
            self.checkpoint.schedule.step()
            self.checkpoint.save(step + 1)


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    through = Training(tmp_path / "through.pt")
    through.run(10)
    torch.manual_seed(0)
    Training(tmp_path / "broken.pt").run(6)
    torch.manual_seed(123)  # another process: another model, another state of the generator
    resumed = Training(tmp_path / "broken.pt")
    assert resumed.checkpoint.load() == 6
    resumed.run(10)
    assert resumed.checkpoint.load() == 10
    for name, tensor in through.model.state_dict().items():
        torch.testing.assert_close(tensor, resumed.model.state_dict()[name], rtol=0, atol=0)
    assert resumed.checkpoint.schedule.last_epoch == 10


def test_a_fresh_training_starts_at_the_first_step(tmp_path: Path) -> None:
    assert Training(tmp_path / "none" / "state.pt").checkpoint.load() == 0


def test_a_save_that_is_cut_off_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path / "state.pt")
    training.run(3)

    def torn(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no room")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="no room"):
        training.run(4)
    assert training.checkpoint.load() == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "dora"},
        {"kind": "loha", "rank": 4, "alpha": 4.0},
        {"kind": "lokr", "rank": 4, "alpha": 4.0},
        {"part": "text_encoder"},
        {"target_modules": ("conv1", "to_q"), "file_format": "kohya"},
        {"hide": 0.5, "named_only": True},
        {"optimizer": "sgd", "times": (0, 300)},
        {"optimizer": "adafactor", "style": "outline"},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_intake_understands_every_kind_of_adapter_that_is_trained(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = replace(LoraRecipe("try", ("🎃",), steps=2, batch=2, pictures=2), **changes)
    file = tmp_path / "try.safetensors"
    train_lora(ASSETS / "pipeline", recipe, file)
    base = load_base_model(ASSETS / "pipeline", "emoji-tiny")
    adapter = read_adapter(StoredFile("a" * 64, file.stat().st_size, file), base).adapters[0]
    assert adapter.coverage.complete
    components = {ref.component for ref in adapter.deltas}
    assert components == {"text_encoder" if recipe.part == "text_encoder" else "unet"}


def test_checkpoints_are_the_adapter_on_its_way(tmp_path: Path) -> None:
    recipe = LoraRecipe("way", ("🎃",), steps=4, batch=2, pictures=2)
    files = {steps: tmp_path / f"{steps}.safetensors" for steps in (2, 4)}
    train_lora(ASSETS / "pipeline", recipe, tmp_path / "way.safetensors", checkpoints=files)
    last = load_file(tmp_path / "way.safetensors")
    assert all(torch.equal(last[name], value) for name, value in load_file(files[4]).items())
    assert not all(torch.equal(last[name], value) for name, value in load_file(files[2]).items())
