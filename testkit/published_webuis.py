"""Key maps of AUTOMATIC1111 and SD.Next, stated a second time; see `published_keys`.

Sources: extensions-builtin/Lora/networks.py of AUTOMATIC1111; modules/lora/lora_load.py and
lora_convert.py of SD.Next.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from loragate_server.models.base import BaseModel
from testkit.published_keys import BASIC, CLIP, RESNET, Layer, Loaded, clip_layers, unet_originals


def a1111(base: BaseModel) -> Loaded:
    """AUTOMATIC1111, of a UNet: one module for each key that its patterns arrive at."""
    modules: dict[str, Layer] = {
        "diffusion_model_" + original.replace(".", "_"): ("unet", layer)
        for original, layer in unet_originals(base).items()
    }
    first = "0_" if base.family == "sdxl" else ""
    for component, names in clip_layers(base).items():
        for name, layer in names.items():
            if not name.endswith(CLIP):
                continue
            key = f"{first}transformer_{name}"
            if component == "text_encoder_2":
                key = "1_model." + name.replace(
                    "text_model.encoder.layers", "transformer.resblocks"
                )
                key = key.replace("self_attn", "attn")
                key = key.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
            modules[key.replace(".", "_")] = (component, layer)
    three = base.denoiser.config.layers_per_block + 1

    def compvis(key: str) -> str:
        resnet = {b: a.replace(".", "_") for a, b in RESNET}
        if m := re.match(r"lora_unet_conv_(in|out)(.*)", key):
            return f"diffusion_model_{'input_blocks_0_0' if m[1] == 'in' else 'out_2'}{m[2]}"
        if m := re.match(r"lora_unet_time_embedding_linear_(\d+)(.*)", key):
            return f"diffusion_model_time_embed_{(int(m[1]) - 1) * 2}{m[2]}"
        for side, shift, name in (("down", 1, "input"), ("up", 0, "output")):
            block = rf"lora_unet_{side}_blocks_(\d+)"
            if m := re.match(block + r"_attentions_(\d+)_(.+)", key):
                place = shift + int(m[1]) * three + int(m[2])
                return f"diffusion_model_{name}_blocks_{place}_1_{m[3]}"
            if m := re.match(block + r"_resnets_(\d+)_(.+)", key):
                place = shift + int(m[1]) * three + int(m[2])
                return f"diffusion_model_{name}_blocks_{place}_0_{resnet.get(m[3], m[3])}"
        if m := re.match(r"lora_unet_mid_block_attentions_(\d+)_(.+)", key):
            return f"diffusion_model_middle_block_1_{m[2]}"
        if m := re.match(r"lora_unet_mid_block_resnets_(\d+)_(.+)", key):
            return f"diffusion_model_middle_block_{int(m[1]) * 2}_{resnet.get(m[2], m[2])}"
        if m := re.match(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", key):
            return f"diffusion_model_input_blocks_{three + int(m[1]) * three}_0_op"
        if m := re.match(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", key):
            part = 2 if int(m[1]) > 0 else 1
            return f"diffusion_model_output_blocks_{three - 1 + int(m[1]) * three}_{part}_conv"
        if m := re.match(r"lora_te_text_model_encoder_layers_(\d+)_(.+)", key):
            return f"transformer_text_model_encoder_layers_{int(m[1])}_{m[2]}"
        if m := re.match(r"lora_te2_text_model_encoder_layers_(\d+)_(.+)", key):
            tail = m[2].replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj")
            tail = tail if "mlp" in m[2] else tail.replace("self_attn", "attn")
            return f"1_model_transformer_resblocks_{int(m[1])}_{tail}"
        return key

    def target(name: str) -> tuple[Layer | None, str]:
        key, _, part = name.partition(".")
        tried = [compvis(key)]
        if "lora_unet" in key:
            tried.append(key.replace("lora_unet", "diffusion_model"))
        elif "lora_te1_text_model" in key:
            tried.append(key.replace("lora_te1_text_model", "0_transformer_text_model"))
            tried.append(key.replace("lora_te1_text_model", "transformer_text_model"))
        return next((modules[each] for each in tried if each in modules), None), part

    return _in_parts(
        target, {("lora_down.weight", "lora_up.weight")} | {("lora_A.weight", "lora_B.weight")}
    )


def sdnext(base: BaseModel, *, dotted_peft: bool, flat_text: bool) -> Loaded:
    """SD.Next: the name of a module of diffusers with underscores."""
    modules: dict[str, Layer] = {}
    denoiser = base.denoiser_component
    for component, layer in base.adaptable_modules():
        if component == denoiser:
            modules[f"lora_{denoiser}_{layer.replace('.', '_')}"] = (component, layer)
    for component, names in clip_layers(base).items():
        starts = {"text_encoder": "lora_te1_" if base.family != "sd" else "lora_te_"}
        starts["text_encoder_2"] = "lora_te2_"
        for name, layer in names.items() if component in starts else ():
            # CLIPTextModel has lost the level, CLIPTextModelWithProjection has kept it
            own = (
                name if "text_projection" in names or not flat_text else name[len("text_model.") :]
            )
            modules[starts[component] + own.replace(".", "_")] = (component, layer)
    table = _sdnext_table(getattr(base.denoiser.config, "layers_per_block", -1) + 1)

    def cut(name: str) -> tuple[str, str]:
        words = name.split(".")
        if words[0] in {"clip_l", "clip_g", "t5", "unet", "transformer"} and not dotted_peft:
            end = len(words)
            while end and words[end - 1] in {"alpha", "weight", "lora_up", "lora_down"}:
                end -= 1
            key = "_".join(words[:end])
            key = "lora_" + key if re.match("unet|transformer", key) else key
            key = key.replace("clip_g", "lora_te2").replace("clip_l", "lora_te")
            return key, ".".join(words[end:])
        if len(words) > 5:
            key, part = "_".join(words[:-2]), ".".join(words[-2:])
            part = part.replace("lora_A", "lora_down").replace("lora_B", "lora_up")
            return key if key.startswith("lora_") else "lora_" + key, part
        return name.split(".", 1)[0], name.split(".", 1)[-1]

    def target(name: str) -> tuple[Layer | None, str]:
        key, part = cut(name)
        key = key.replace("diffusion_model", "lora_unet")
        short = re.sub("lora_te[12]_", "", key.replace("lora_unet_", "").replace("oft_unet_", ""))
        below = [each for each in table if each <= short]
        if below and short.startswith(max(below)):
            key = key.replace(max(below), table[max(below)]).replace("oft", "lora")
        if "lycoris" in key and "transformer" in key:
            key = key.replace("lycoris", "lora_transformer")
        found = modules.get(key) or modules.get(key.replace("guidance", "timestep"))
        if found is None and key.startswith("lora_te"):
            found = modules.get(key.replace("_text_model_", "_", 1))
        return found, part

    return _in_parts(target, {("lora_down.weight", "lora_up.weight")})


def _sdnext_table(three: int) -> dict[str, str]:
    if not three:  # a transformer has no such blocks to be found under their names
        three = 1
    pairs: list[tuple[str, str]] = []
    for i in range(4):
        for j in range(three - 1):
            pairs.append((f"input_blocks.{three * i + j + 1}.0", f"down_blocks.{i}.resnets.{j}"))
            if i < 3:
                at = f"input_blocks.{three * i + j + 1}.1"
                pairs.append((at, f"down_blocks.{i}.attentions.{j}"))
        for j in range(three):
            pairs.append((f"output_blocks.{three * i + j}.0", f"up_blocks.{i}.resnets.{j}"))
            pairs.append((f"output_blocks.{three * i + j}.1", f"up_blocks.{i}.attentions.{j}"))
        if i < 3:
            at = f"input_blocks.{three * (i + 1)}.0.op"
            pairs.append((at, f"down_blocks.{i}.downsamplers.0.conv"))
            at = f"output_blocks.{three * i + three - 1}.2"
            pairs.append((at, f"up_blocks.{i}.upsamplers.0"))
    pairs += [("middle_block.1", "mid_block.attentions.0")]
    pairs += [(f"middle_block.{2 * j}", f"mid_block.resnets.{j}") for j in range(2)]
    resnet = (*RESNET, ("in_layers.0", "norm1"), ("out_layers.0", "norm2"))
    full = [
        (f"{a}.{x}", f"{b}.{y}")
        for a, b in pairs
        for x, y in (resnet if "resnets" in b else (("", ""),))
    ]
    full += [pair for pair in BASIC if "class_embedding" not in pair[1]]
    full += [("out.0", "conv_norm_out")]
    return {a.rstrip(".").replace(".", "_"): b.rstrip(".").replace(".", "_") for a, b in full}


def _in_parts(
    target: Callable[[str], tuple[Layer | None, str]], accepted: set[tuple[str, str]]
) -> Loaded:
    def loaded(down: str, up: str) -> set[Layer]:
        (first, down_part), (second, up_part) = target(down), target(up)
        if first is None or first != second or (down_part, up_part) not in accepted:
            return set()
        return {first}

    return loaded
