"""What a folder shows of a base model without loading it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.models.folder import look_at
from loragate_server.models.loading import BaseModelError
from testkit.tiny_models import FAMILIES, tiny_pipeline

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        tiny_pipeline(family).save_pretrained(folder / family)
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "sdxl", tmp_path / "model"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_every_family_says_what_it_holds(made: Path, family: str) -> None:
    seen = look_at(made / family)
    pipeline = tiny_pipeline(family)
    denoiser = pipeline.unet if family in ("sd", "sdxl") else pipeline.transformer
    assert (seen.family, seen.pipeline) == (family, type(pipeline).__name__)
    assert seen.numbers == sum(each.numel() for each in denoiser.state_dict().values())
    assert seen.dtype == "float32"
    assert {"vae", "scheduler", "text_encoder", "tokenizer"} <= set(seen.parts)


def test_what_weights_are_stored_in_is_told() -> None:
    seen = look_at(EMBEDDED_PIPELINE)
    assert (seen.family, seen.dtype, seen.variant) == ("sd", "float16", "")
    assert 4e6 < seen.weights_bytes < 8e6


def test_of_several_variants_one_is_counted(model: Path) -> None:
    before = look_at(model).weights_bytes
    for file in model.glob("*/*.safetensors"):
        shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    assert look_at(model).weights_bytes == before, "files without a mark are loaded first"
    for file in model.glob("*/*.safetensors"):
        if "fp16" not in file.name:
            file.unlink()
    seen = look_at(model)
    assert (seen.variant, seen.weights_bytes) == ("fp16", before)


def pickled(model: Path) -> Path:
    (model / UNET).rename(model / "unet" / "diffusion_pytorch_model.bin")
    return model


def without_vae(model: Path) -> Path:
    shutil.rmtree(model / "vae")
    return model


def without_weights(model: Path) -> Path:
    (model / UNET).unlink()
    return model


def cut_off(model: Path) -> Path:
    data = (model / UNET).read_bytes()
    (model / UNET).write_bytes(data[: len(data) // 2])
    return model


def pointer(model: Path) -> Path:
    (model / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return model


def without_a_shard(model: Path) -> Path:
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "diffusion-00002-of-00002.safetensors"}}))
    return model


def with_a_mad_index(model: Path) -> Path:
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("[]")
    return model


def one_file(model: Path) -> Path:
    return Path(shutil.copy(model / UNET, model.parent / "model.safetensors"))


def one_pickle(model: Path) -> Path:
    (model.parent / "model.ckpt").write_bytes(b"\x80\x04")
    return model.parent / "model.ckpt"


def a_folder_with_a_pickle(model: Path) -> Path:
    (folder := model.parent / "downloads").mkdir()
    (folder / "model.ckpt").write_bytes(b"\x80\x04")
    return folder


def another_kind(model: Path) -> Path:
    index = model / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", "KandinskyPipeline"))
    return model


def no_object(model: Path) -> Path:
    (model / "model_index.json").write_text("[1, 2]")
    return model


def without_index(model: Path) -> Path:
    (model / "model_index.json").unlink()
    return model


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (pickled, r"unet: its weights are pickled .* `save_pretrained`"),
        (without_vae, "its part vae is missing, which model_index.json names"),
        (without_weights, r"unet holds no weights \(\*.safetensors\)"),
        (cut_off, "is cut off or damaged: .* fetch it again"),
        (pointer, "is a pointer of Git LFS and no weights; fetch them with `git lfs pull`"),
        (without_a_shard, "diffusion-00002-of-00002.safetensors is missing, which its index names"),
        (with_a_mad_index, "index.json cannot be read"),
        (one_file, "is a checkpoint in one file. Make a folder of it"),
        (one_pickle, "is a pickle, which runs code of whoever made it"),
        (a_folder_with_a_pickle, "model.ckpt is a pickle"),
        (another_kind, "'KandinskyPipeline' is not one of StableDiffusionPipeline, "),
        (no_object, "_class_name 'None' is not one of"),
        (without_index, "has no model_index.json; name the folder of a whole pipeline"),
        (lambda model: model / "unet", "not of one of its parts"),
        (lambda model: model / "nowhere", "there is no .*nowhere; name a folder"),
    ],
)
def test_what_cannot_be_a_base_model_is_refused_with_what_to_do(
    model: Path, spoil: Callable[[Path], Path], told: str
) -> None:
    with pytest.raises(BaseModelError, match=told):
        look_at(spoil(model))


def test_a_part_without_which_a_model_is_audited_as_well_may_be_missing(model: Path) -> None:
    index = model / "model_index.json"
    described = json.loads(index.read_text())
    described["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    index.write_text(json.dumps(described))
    assert "image_encoder" not in look_at(model).parts
