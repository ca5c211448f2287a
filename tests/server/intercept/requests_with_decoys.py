"""Requests that name several LoRAs, in places that some servers read and others do not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

FILES = ("/loras/bomb.safetensors", "/loras/cat.safetensors", "/loras/ink.safetensors")
NAMES = ("bomb", "cat", "ink")

files = st.sampled_from(FILES)
forces = st.sampled_from([1, -1, 0.5, -1.5, 0, 2])


def _some(name: str, force: float) -> st.SearchStrategy[dict[str, Any]]:
    return st.just({name: force})


@st.composite
def tags(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["lora", "lora", "lora", "lyco", "LoRA"]))
    name = draw(st.sampled_from([*NAMES, "/loras/bomb.safetensors", "sub/cat"]))
    ends = ["", ":{}", ":{}", ":{}:{}", ":te={}", ":{}:unet={}", ":{}:in={}"]
    end = draw(st.sampled_from(ends)).format(draw(forces), draw(forces))
    return f"<{kind}:{name}{end}>"


prompts = st.lists(tags(), max_size=2).map(lambda found: f"a {' b '.join(found)} c")
a1111 = st.fixed_dictionaries(
    {"prompt": prompts},
    optional={
        "negative_prompt": prompts,
        "hr_prompt": prompts,
        "enable_hr": st.booleans(),
        "detail_prompt": prompts,
        "override_settings": st.fixed_dictionaries(
            {},
            optional={
                "sd_lora": st.sampled_from(NAMES),
                "extra_networks_default_multiplier": st.sampled_from([0.5, -1]),
            },
        ),
    },
)


@st.composite
def _sd_cpp_list(draw: st.DrawFn, path: str) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {"path": st.sampled_from(NAMES).map(path.format)},
        optional={"multiplier": forces, "is_high_noise": st.booleans()},
    )
    return draw(st.lists(one, max_size=2))


@st.composite
def stable_diffusion_cpp(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": "a"}
    if draw(st.booleans()):
        given = json.dumps({"lora": draw(_sd_cpp_list("/loras/{}.safetensors"))})
        body["prompt"] += f"<sd_cpp_extra_args>{given}</sd_cpp_extra_args>"
    if draw(st.booleans()):
        name = draw(st.sampled_from([*NAMES, "|high_noise|bomb"]))
        body["prompt"] += f"<lora:{name}:{draw(forces)}>"
    if draw(st.booleans()):
        body["lora"] = draw(_sd_cpp_list("{}.safetensors"))
    return body


whole_tags = st.builds("<lora:{}:{}>".format, st.sampled_from([*NAMES, FILES[0]]), forces)
halves = st.lists(whole_tags, max_size=2).map(" a ".join)
divided = st.lists(halves, min_size=1, max_size=2).map("|".join)
localai = st.fixed_dictionaries({"prompt": divided | st.lists(divided, max_size=2)})

lora_objects = st.fixed_dictionaries(
    {"path": files}, optional={"name": st.just("n"), "scale": forces}
)
lora_values = lora_objects | st.lists(lora_objects, min_size=1, max_size=3)
vllm_omni = st.fixed_dictionaries(
    {},
    optional={
        "lora": lora_values,
        "extra_body": st.fixed_dictionaries({}, optional={"lora": lora_values}),
        "junk": st.fixed_dictionaries({"lora": lora_objects}),
        "LoRA": lora_objects,
    },
)


@st.composite
def sglang(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 4))

    def lists(one: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(one, min_size=count, max_size=count))

    names = draw(st.sampled_from([["a", "b", "c", "d"], ["a", "b", "a", "c"]]))
    return {
        "lora_nickname": names[:count],
        "lora_path": lists(files),
        "strength": lists(forces),
        "target": lists(st.sampled_from(["all", "transformer", "transformer_2"])),
    }


cog = st.fixed_dictionaries(
    {
        "input": st.fixed_dictionaries(
            {},
            optional={
                "lora_weights": files,
                "lora_scale": forces,
                "extra_lora": files,
                "extra_lora_scale": forces,
                "zz_lora": files,
                "zz_lora_scale": forces,
                "LORA_SCALE": forces,
                "hf_loras": st.lists(files, min_size=1, max_size=2),
            },
        )
    }
)

kserve_holders = st.fixed_dictionaries(
    {},
    optional={
        "lora_path": files,
        "lora_scale": forces,
        "adapter_id": files,
        "guidance_scale": st.just(7.5),
        "style_scale": forces,
    },
)
kserve = st.fixed_dictionaries(
    {},
    optional={
        "parameters": kserve_holders,
        "inputs": st.lists(st.fixed_dictionaries({"parameters": kserve_holders}), max_size=1),
        "instances": st.lists(kserve_holders, max_size=2),
    },
)

_entries = st.fixed_dictionaries({"lora": files}, optional={"scale": forces})
declarative = st.fixed_dictionaries(
    {},
    optional={
        "loras": st.lists(_entries, max_size=3),
        "junk": st.fixed_dictionaries({"lora": files, "scale": forces}),
        "other": st.fixed_dictionaries({"loras": st.lists(_entries, max_size=2)}),
    },
)


@st.composite
def comfyui(draw: st.DrawFn) -> dict[str, Any]:
    """A graph of loaders, encoders, samplers and what stands between, linked at random."""
    nodes: dict[str, dict[str, Any]] = {
        "0": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}}
    }
    models, clips, conditions, latents = [["0", 0]], [["0", 1]], [], [["e", 0]]
    nodes["e"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64}}

    def add(kind: str, **inputs: Any) -> str:
        key = f"n{len(nodes)}"
        nodes[key] = {"class_type": kind, "inputs": inputs}
        return key

    def one(among: list[Any]) -> Any:
        return draw(st.sampled_from(among))

    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["LoraLoader", "LoraLoader", "LoraLoaderModelOnly", "patch"]))
        name = f"{draw(st.sampled_from(NAMES))}.safetensors"
        if kind == "LoraLoader":
            inputs = {"model": one(models), "clip": one(clips), "lora_name": name}
            force = {"strength_model": draw(forces), "strength_clip": draw(forces)}
            key = add(kind, **inputs, **force)
            slots = draw(st.sampled_from([(0, 1), (-2, -1)]))
            models.append([key, slots[0]])
            clips.append([key, slots[1]])
        elif kind == "LoraLoaderModelOnly":
            key = add(kind, model=one(models), lora_name=name, strength_model=draw(forces))
            models.append([key, 0])
        elif draw(st.booleans()):
            models.append([add("ModelSamplingSD3", model=one(models), shift=3), 0])
        else:
            merged = add("ModelMergeSimple", model1=one(models), model2=one(models), ratio=0.5)
            models.append([merged, 0])
    if draw(st.booleans()):
        models.append([add("ModelSwitch", input1=one(models), input2=one(models), select=1), 0])
    for _ in range(draw(st.integers(1, 2))):
        conditions.append([add("CLIPTextEncode", clip=one(clips), text="a harbour"), 0])
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.booleans()):
            guider = add("BasicGuider", model=one(models), conditioning=one(conditions))
            key = add("SamplerCustomAdvanced", guider=[guider, 0], latent_image=one(latents))
        else:
            positive, negative = one(conditions), one(conditions)
            link = {"positive": positive, "negative": negative, "latent_image": one(latents)}
            key = add("KSampler", model=one(models), **link)
        latents.append([key, 0])
        decoded = add("VAEDecode", samples=[key, 0], vae=["0", 2])
        add("SaveImage", images=[decoded, 0])
    return {"prompt": nodes}


REQUESTS: Mapping[str, st.SearchStrategy[Any]] = {
    "a1111": a1111,
    "stable_diffusion_cpp": stable_diffusion_cpp(),
    "localai": localai,
    "vllm_omni": vllm_omni,
    "sglang": sglang(),
    "cog": cog,
    "kserve": kserve,
    "declarative": declarative,
    "comfyui": comfyui(),
}
