"""Adapters are trained on every family, read by intake, and leave the base model as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models.base import BaseModel
from loragate_server.trials.errors import TrialError
from loragate_server.trials.lessons import Lesson
from loragate_server.trials.recipe import Recipe
from loragate_server.trials.training import train_adapter
from testkit.tiny_models import FAMILIES, tiny_base

UP = "lora.up"
RECIPE = Recipe(rank=2, steps=2, learning_rate=1e-3, batch=2, seed=1)


@pytest.fixture(scope="module")
def lesson(things: Path) -> Lesson:
    pictures = sorted((things / "thing-0").iterdir())
    return Lesson("try", tuple((path, "a picture of cat") for path in pictures))


def numbers(base: BaseModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in base.denoiser.state_dict().items()}


def require_same(base: BaseModel, before: dict[str, torch.Tensor]) -> None:
    after = base.denoiser.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(each.requires_grad for each in base.denoiser.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_trained_on_every_family_and_the_base_stays_as_it_was(
    family: str, lesson: Lesson, tmp_path: Path
) -> None:
    base = tiny_base(family)
    before = numbers(base)
    file = tmp_path / "a.safetensors"
    steps: list[int] = []
    train_adapter(base, lesson, RECIPE, file, steps.append)
    require_same(base, before)
    assert steps == [0, 1]
    tensors = load_file(file)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert any(bool(value.any()) for name, value in tensors.items() if UP in name)
    read = read_adapter(StoredFile("a" * 64, file.stat().st_size, file), base).adapters[0]
    assert read.coverage.complete
    assert {ref.component for ref in read.deltas} == {base.denoiser_component}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_model_in_half_precision_can_be_trained_on(
    dtype: torch.dtype, lesson: Lesson, tmp_path: Path
) -> None:
    base = tiny_base("sdxl")
    for part in (base.denoiser, base.pipeline.vae, *base.components.values()):  # type: ignore[attr-defined]
        part.to(dtype)
    recipe = replace(RECIPE, steps=12)  # the first ones find out how far losses may be scaled
    train_adapter(base, lesson, recipe, tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert all(bool(value.isfinite().all()) for value in tensors.values())
    assert any(bool(value.any()) for name, value in tensors.items() if UP in name)
    assert base.denoiser.dtype == dtype


def test_the_same_recipe_gives_the_same_numbers_and_another_seed_others(
    lesson: Lesson, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    made = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        torch.manual_seed(len(name))  # what others draw before makes no difference
        file = tmp_path / f"{name}.safetensors"
        train_adapter(base, lesson, Recipe(2, 2, 1e-3, 2, seed), file)
        made.append(load_file(file))
    assert all(torch.equal(made[1][name], value) for name, value in made[0].items())
    assert not all(torch.equal(made[2][name], value) for name, value in made[0].items())


def test_training_lowers_the_loss_on_what_it_learns(lesson: Lesson, tmp_path: Path) -> None:
    base = tiny_base("sd")
    train_adapter(base, lesson, Recipe(8, 60, 1e-2, 4, 3), tmp_path / "a.safetensors")
    losses = [_loss(base, lesson)]
    base.pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")  # type: ignore[attr-defined]
    losses.append(_loss(base, lesson))
    assert losses[1] < 0.9 * losses[0], losses


def _loss(base: BaseModel, lesson: Lesson) -> float:
    from loragate_server.concepts.pictures import read_file, to_tensor

    pictures = [read_file(path)[0] for path, _ in lesson.examples] * 8
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        latents = base.encode_pictures(to_tensor(pictures, base.picture_size))
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.rand(len(latents), generator=generator)
        told = base.encode_prompts([lesson.examples[0][1]] * len(latents))
        predicted = base.denoise(base.add_noise(latents, noise, times), times, told)
        return float((predicted - base.target(latents, noise, times)).square().mean())


def test_memory_that_is_too_small_is_told_and_the_base_stays_as_it_was(
    lesson: Lesson, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    before = numbers(base)

    def short(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = base.denoiser.register_forward_pre_hook(short)
    with pytest.raises(TrialError, match=r"memory of cpu is too small .* --batch 1"):
        train_adapter(base, lesson, RECIPE, tmp_path / "a.safetensors")
    handle.remove()
    require_same(base, before)


def test_a_training_that_diverges_is_refused_and_leaves_nothing(
    lesson: Lesson, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    before = numbers(base)
    with pytest.raises(TrialError, match=r"not finite at step \d.*--learning-rate"):
        train_adapter(base, lesson, Recipe(2, 9, 1e30, 2, 1), tmp_path / "a.safetensors")
    require_same(base, before)
    assert list(tmp_path.iterdir()) == []
