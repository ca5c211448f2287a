"""Folders of base models: which pipelines and variants are loaded, and which are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from loragate_server.app.startup import audit_settings, load_base
from loragate_server.config.schema import BaseModelEntry, Config
from loragate_server.models import BaseModel, BaseModelError, from_pipeline, load_base_model
from loragate_server.models.folder import look_at
from loragate_server.models.loading import SAME_DENOISER, digest_of_folder, variant_of
from testkit.tiny_models import tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, on tiny configurations

FAMILY_OF = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}


def saved(pipeline: Any, folder: Path, kind: str | None = None, **options: Any) -> Path:
    """The pipeline on disk, under the name of another kind of pipeline where one is given."""
    pipeline.save_pretrained(folder, **options)
    index = folder / "model_index.json"
    described = json.loads(index.read_text())
    index.write_text(json.dumps(described | {"_class_name": kind or described["_class_name"]}))
    return folder


def configured(module: Any, **options: Any) -> Any:
    """Another module of the same class, with some options changed."""
    own = {key: value for key, value in module.config.items() if not key.startswith("_")}
    return type(module)(**(own | options))


def output_of(base: BaseModel) -> torch.Tensor:
    with torch.inference_mode():
        told = base.encode_prompts(["a red cat"])
        shape = base.encode_pictures(torch.zeros(1, 3, *base.picture_size)).shape
        noisy = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        return base.denoise(noisy, torch.tensor([0.4]), told)


@pytest.mark.parametrize("kind", list(SAME_DENOISER))
def test_a_pipeline_of_the_same_denoiser_is_loaded_as_the_one_that_is_measured(
    kind: str, tmp_path: Path
) -> None:
    own = SAME_DENOISER[kind]
    pipeline = tiny_pipeline(FAMILY_OF[own])
    folder = saved(pipeline, tmp_path, kind)
    base = load_base_model(folder, "another")
    assert base.family == FAMILY_OF[own]
    assert torch.allclose(output_of(base), output_of(from_pipeline(pipeline, "own")), atol=1e-5)
    assert set(base.components) <= set(getattr(diffusers, kind)._lora_loadable_modules)


def test_a_kind_of_pipeline_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tiny_pipeline("sd"), tmp_path, "StableDiffusionUpscalePipeline")
    with pytest.raises(BaseModelError, match="StableDiffusionUpscalePipeline"):
        load_base_model(folder, "another")


@pytest.mark.parametrize(("family", "channels"), [("sd", 9), ("sdxl", 8), ("sd3", 8), ("flux", 32)])
def test_a_denoiser_that_takes_more_than_latents_is_refused(
    family: str, channels: int, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline(family)
    name = "unet" if family in ("sd", "sdxl") else "transformer"
    denoiser = getattr(pipeline, name)
    setattr(pipeline, name, configured(denoiser, in_channels=channels))
    folder = saved(pipeline, tmp_path)
    with pytest.raises(BaseModelError, match=f"takes {channels} channels"):
        load_base_model(folder, "masked")


def test_a_unet_distilled_with_guidance_is_told_one(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sd")
    torch.manual_seed(0)
    pipeline.unet = configured(pipeline.unet, time_cond_proj_dim=8)
    pipeline.scheduler = diffusers.LCMScheduler.from_config(pipeline.scheduler.config)
    base = load_base_model(saved(pipeline, tmp_path, "LatentConsistencyModelPipeline"), "lcm")
    with_guidance = output_of(base)
    weight = base.denoiser.get_submodule("time_embedding.cond_proj").weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        weight.zero_()
    assert not torch.equal(with_guidance, output_of(base))


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (diffusers.EDMEulerScheduler(), "EDMEulerScheduler, which has no schedule of betas"),
        (diffusers.EDMDPMSolverMultistepScheduler(), "no schedule of betas"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "no schedule of betas"),
        (diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True), "flow sigmas"),
        (diffusers.EulerDiscreteScheduler(timestep_type="continuous"), "continuous times"),
        (diffusers.DDIMScheduler(prediction_type="sample"), "prediction_type is 'sample'"),
    ],
)
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_unet_that_is_noised_otherwise_is_refused_and_given_no_other_schedule(
    family: str, scheduler: Any, says: str, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline(family)
    pipeline.scheduler = scheduler
    with pytest.raises(BaseModelError, match=re.escape(says)):
        load_base_model(saved(pipeline, tmp_path), "edm")


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_transformer_without_flow_matching_is_refused(family: str, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(family)
    pipeline.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(BaseModelError, match="not one of flow matching"):
        load_base_model(saved(pipeline, tmp_path), "ddim")


def test_a_refiner_is_refused_by_what_its_unet_is_told(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sdxl")
    told = 32 + 5 * 8
    pipeline.unet = configured(pipeline.unet, projection_class_embeddings_input_dim=told)
    folder = saved(pipeline, tmp_path, "StableDiffusionXLImg2ImgPipeline")
    with pytest.raises(BaseModelError, match="refiners of SDXL"):
        load_base_model(folder, "refiner")


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_a_base_model_is_asked_about_pictures_of_the_size_that_is_set(
    family: str, tmp_path: Path
) -> None:
    folder = saved(tiny_pipeline(family), tmp_path)
    own = load_base_model(folder, "own")
    entry = BaseModelEntry(name="set", folder=folder, picture_size=32, batch_rows=3, held_bytes=9)
    other = load_base(entry)
    assert own.is_own_size
    assert not other.is_own_size
    assert other.picture_size == (32, 32) != own.picture_size
    output_of(other)
    settings = audit_settings(Config(base_models=(entry,)), entry)
    assert (settings.batch_rows, settings.held_bytes) == (3, 9)
    odd = 32 + (2 if family in ("sd3", "flux") else 1)
    with pytest.raises(ValueError, match=f"pictures of {odd}x32 pixels do not fit it; each side"):
        from_pipeline(tiny_pipeline(family), "odd", picture_size=(32, odd))


def test_a_part_that_is_a_link_is_part_of_what_the_model_is_called(tmp_path: Path) -> None:
    folder = saved(tiny_pipeline("sd"), tmp_path / "model")
    whole = digest_of_folder(folder)
    (folder / "unet").rename(tmp_path / "unet of one")
    other = saved(tiny_pipeline("sd", seed=5), tmp_path / "other") / "unet"
    (folder / "unet").symlink_to(tmp_path / "unet of one")
    assert digest_of_folder(folder) == whole
    (folder / "unet").unlink()
    (folder / "unet").symlink_to(other)
    assert digest_of_folder(folder) != whole


def test_what_is_not_loaded_is_no_part_of_what_the_model_is_called(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sd")
    folder = saved(pipeline, tmp_path / "model")
    whole = digest_of_folder(folder)
    (folder / "checkpoint.safetensors").write_bytes(b"all in one file")
    (folder / "loras").mkdir()
    (folder / "loras" / "style.bar.safetensors").write_bytes(b"somebody's")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"of which nothing is loaded")
    pipeline.unet.save_pretrained(folder / "unet", variant="fp16")
    (folder / "README.txt").write_text("words")
    assert digest_of_folder(folder) == whole
    assert load_base_model(folder, "sd").digest == whole
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert digest_of_folder(folder) != whole


def test_a_cut_off_part_is_told_and_ends_in_no_traceback(tmp_path: Path) -> None:
    folder = saved(tiny_pipeline("sd"), tmp_path)
    for part in ("text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        whole = (folder / part).read_bytes()
        (folder / part).write_bytes(whole[:-9])
        with pytest.raises(BaseModelError, match=str(folder)):
            load_base_model(folder, "cut")
        (folder / part).write_bytes(whole)


def test_a_schedule_is_followed_where_its_own_defaults_are_others_than_ours(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sd")
    pipeline.scheduler = diffusers.LCMScheduler()  # whose betas are scaled linearly
    base = from_pipeline(pipeline, "lcm")
    noised = base.add_noise(torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([0.5]))
    kept = pipeline.scheduler.alphas_cumprod[499].sqrt()
    assert torch.allclose(noised, kept.expand_as(noised), atol=1e-5)


def test_a_folder_of_half_precision_weights_alone_is_loaded(tmp_path: Path) -> None:
    pipeline = tiny_pipeline("sd")
    folder = saved(pipeline, tmp_path, variant="fp16")
    assert not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert variant_of(folder) == "fp16"
    base = load_base_model(folder, "half")
    assert torch.allclose(output_of(base), output_of(from_pipeline(pipeline, "own")), atol=1e-5)


@pytest.mark.parametrize("there", [False, True])
def test_parts_that_judge_pictures_are_not_loaded_and_may_be_missing(
    there: bool, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline("sd")
    folder = saved(pipeline, tmp_path)
    index = folder / "model_index.json"
    parts = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": True,
    }
    index.write_text(json.dumps(json.loads(index.read_text()) | parts))
    if there:
        (folder / "safety_checker").mkdir()
        (folder / "safety_checker" / "pytorch_model.bin").write_bytes(b"no weights")
        # of a variant that no other part has
        save_file({"a": torch.zeros(1)}, folder / "safety_checker" / "model.bf16.safetensors")
    assert "unet" in look_at(folder).parts
    base = load_base_model(folder, "passed on")
    own = from_pipeline(pipeline, "own")
    assert torch.allclose(output_of(base), output_of(own), atol=1e-5)


@pytest.mark.parametrize("kept", ["fp16", ""])
def test_the_index_of_a_variant_that_is_not_loaded_names_nothing_that_is_missing(
    kept: str, tmp_path: Path
) -> None:
    pipeline = tiny_pipeline("sd")
    own = output_of(from_pipeline(tiny_pipeline("sd"), "own"))
    saved(pipeline, tmp_path, max_shard_size="100KB", variant=kept or None)
    other = "" if kept else ".fp16"
    named = {"weight_map": {"a": f"diffusion_pytorch_model{other}-00001-of-00002.safetensors"}}
    index = tmp_path / "unet" / f"diffusion_pytorch_model.safetensors.index{other}.json"
    index.write_text(json.dumps(named))
    assert look_at(tmp_path).variant == kept
    assert torch.allclose(output_of(load_base_model(tmp_path, "one of two")), own, atol=1e-5)


def test_weights_without_a_mark_come_before_those_of_a_variant(tmp_path: Path) -> None:
    folder = saved(tiny_pipeline("sd"), tmp_path)
    saved(tiny_pipeline("sd", seed=1), tmp_path, variant="fp16")
    assert variant_of(folder) is None
    base = load_base_model(folder, "plain")
    own = from_pipeline(tiny_pipeline("sd"), "own")
    assert torch.allclose(output_of(base), output_of(own), atol=1e-5)


def test_parts_of_several_variants_are_refused(tmp_path: Path) -> None:
    folder = saved(tiny_pipeline("sd"), tmp_path, variant="fp16")
    weights = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.bf16.safetensors"))
    with pytest.raises(BaseModelError, match="no variant of the weights has all components"):
        load_base_model(folder, "mixed")


@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_in_one_file_says_how_to_make_a_folder(inside: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(4)}, file)
    with pytest.raises(BaseModelError, match="from_single_file"):
        load_base_model(tmp_path if inside else file, "single")
