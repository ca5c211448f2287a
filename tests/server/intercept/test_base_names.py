"""Requests that name a base model of their own: what `base_names` says of them."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import post
from tests.server.intercept.verdicts import found, refusal

INK = "<lora:ink:1>"
BASES = ("base.safetensors", "base.safetensors [31e35c80fc]")


def picture(**members: Any) -> HttpRequest:
    return post("/sdapi/v1/txt2img", {"prompt": INK, **members})


def flow(loader: dict[str, Any], **nodes: Any) -> HttpRequest:
    lora = {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "ink.safetensors"}}
    return post("/prompt", {"prompt": {"1": loader, "2": lora, **nodes}})


def loader(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize(
    "request_",
    [
        picture(override_settings={"sd_model_checkpoint": "other"}),
        picture(override_settings={"SD_Model_Checkpoint": "other"}),
        picture(override_settings={"forge_additional_modules": ["/srv/te.safetensors"]}),
        picture(override_settings={"sd_unet": "other"}),
        picture(refiner_checkpoint="other"),
        picture(hr_checkpoint_name="other"),
        picture(override_settings={"sd_model_dict": "other"}),
        picture(alwayson_scripts={"refiner": {"args": [True, "other.safetensors", 0.01]}}),
        picture(alwayson_scripts={"Refiner": {"args": [1, "other.safetensors", 0.01]}}),
        picture(alwayson_scripts={"ADetailer": {"args": [{"ad_checkpoint": "other"}]}}),
        picture(infotext="a\nSteps: 2, Model hash: 31e35c80fc, Model: other"),
        post("/sdapi/v1/options", {"sd_model_checkpoint": "other"}),
        post("/v1/images/generations", {"model": "other", "prompt": INK}),
    ],
)
def test_a_web_ui_that_is_to_change_its_base_is_refused_where_its_names_are_known(
    request_: HttpRequest,
) -> None:
    assert refusal("a1111", request_, base_names=BASES) == "adapter_ambiguous"
    found("a1111", request_)  # and passes where they are not


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"override_settings": {"sd_model_checkpoint": BASES[1], "sd_vae": "other"}},
        {"refiner_checkpoint": None, "hr_checkpoint_name": "Use same checkpoint"},
        {"override_settings": {"sd_unet": "Automatic", "forge_additional_modules": []}},
        {"infotext": "a\nSteps: 2, Sampler: Euler, Size: 8x8"},
        {"alwayson_scripts": {"refiner": {"args": [False, "other.safetensors", 0.8]}}},
        {"alwayson_scripts": {"refiner": {"args": [True, "base.safetensors", 0.8]}}},
        {"alwayson_scripts": {"controlnet": {"args": [{"model": "canny [d14c016b]"}]}}},
    ],
)
def test_a_web_ui_that_keeps_its_base_passes(members: dict[str, Any]) -> None:
    assert found("a1111", picture(**members), base_names=BASES) == ["/loras/ink.safetensors"]


@pytest.mark.parametrize(
    "first",
    [
        loader("CheckpointLoaderSimple", ckpt_name="other.safetensors"),
        loader("UNETLoader", unet_name="other.safetensors"),
        loader("Efficient Loader", ckpt_name="base.safetensors", refiner_ckpt_name="other.ckpt"),
        loader("CheckpointLoaderSimple", ckpt_name=["9", 0]),
    ],
)
def test_a_graph_with_loras_on_another_base_is_refused_where_its_names_are_known(
    first: dict[str, Any],
) -> None:
    nine = loader("PrimitiveString", value="other.safetensors")
    request = flow(first, **{"9": nine})
    assert refusal("comfyui", request, base_names=BASES) == "adapter_ambiguous"
    assert "/loras/ink.safetensors" in found("comfyui", request)


def test_a_graph_on_the_base_passes_with_what_else_it_loads() -> None:
    request = flow(
        loader("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
        **{
            "3": loader("VAELoader", vae_name="any.safetensors"),
            "4": loader("UpscaleModelLoader", model_name="any.pth"),
            "5": loader("KSampler", model=["2", 0], unet=["1", 0], steps=2),
        },
    )
    assert found("comfyui", request, base_names=BASES) == ["/loras/ink.safetensors"]


def test_a_graph_without_loras_may_load_any_base() -> None:
    nodes = {"1": loader("CheckpointLoaderSimple", ckpt_name="other.safetensors")}
    assert found("comfyui", post("/prompt", {"prompt": nodes}), base_names=BASES) == []


def test_a_model_that_describes_pictures_is_no_base() -> None:
    asked = post("/sdapi/v1/interrogate", {"image": "iVBORw0KGgo", "model": "clip"})
    assert found("a1111", asked, base_names=BASES) == []


@pytest.mark.parametrize(
    "other",
    [
        loader("FrameInterpolationModelLoader", model_name="rife.safetensors"),
        loader("ADE_LoadAnimateDiffModel", model_name="mm_sd_v15.ckpt"),
        loader("RIFE VFI", ckpt_name="rife47.pth"),
        loader("OpticalFlowLoader", model_name="flow.pth"),
        loader("INPAINT_LoadInpaintModel", model_name="big-lama.pt"),
    ],
)
def test_models_beside_the_base_are_none(other: dict[str, Any]) -> None:
    request = flow(loader("CheckpointLoaderSimple", ckpt_name=BASES[0]), **{"8": other})
    assert found("comfyui", request, base_names=BASES) == ["/loras/ink.safetensors"]


@pytest.mark.parametrize(
    "other",
    [
        loader("DiffusersLoader", model_path="other"),
        loader("WanVideoModelLoader", model="other.safetensors"),
        loader("NunchakuFluxDiTLoader", model_path="other"),
    ],
)
def test_bases_of_other_packs_are_bases(other: dict[str, Any]) -> None:
    request = flow(loader("CheckpointLoaderSimple", ckpt_name=BASES[0]), **{"8": other})
    assert refusal("comfyui", request, base_names=BASES) == "adapter_ambiguous"
