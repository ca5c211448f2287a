"""Doors that diffusers itself offers: methods of pipelines and of their models."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.utils.peft_utils import scale_lora_layers

from testkit.guard_doors.bench import Bench, config
from testkit.guard_doors.door import Door, bare, both_active
from testkit.tiny_models import WIDTH, tiny_pipeline


def _turned_off(bench: Bench) -> None:
    both_active(bench)
    bench.pipe.disable_lora()


def _call(bench: Bench, **options: Any) -> None:
    bench.draw = lambda: bench.drawn(**options)


def _encode(bench: Bench) -> None:
    def draw() -> torch.Tensor:
        made, _ = bench.pipe.encode_prompt("a red cat", "cpu", 1, False, lora_scale=3.0)
        return bench.drawn(prompt_embeds=made)

    bench.draw = draw


def _other(name: str) -> Any:
    return getattr(tiny_pipeline("sd", 7), name)


def _exchange(bench: Bench, name: str) -> None:
    setattr(bench.pipe, name, _other(name))


def _lora_into(bench: Bench, part: str) -> None:
    tensors = bench.files.tensors(bench.files.b)
    into = getattr(bench.pipe, f"load_lora_into_{part}")
    model = getattr(bench.pipe, part)
    into(tensors, None, model, adapter_name="c")


def _by_another_prefix(bench: Bench) -> None:
    whole = bench.files.tensors(bench.files.of_unet)
    hidden = {name.replace("unet.", "other.", 1): 3 * one for name, one in whole.items()}
    bench.pipe.unet.load_lora_adapter(whole | hidden, prefix="other", adapter_name="c")


def _into_vae(bench: Bench) -> None:
    layer = "vae.decoder.mid_block.attentions.0.to_out.0"
    width = bench.pipe.vae.get_submodule(layer.removeprefix("vae.")).in_features
    factors = {
        f"{layer}.lora_A.weight": torch.ones(2, width),
        f"{layer}.lora_B.weight": torch.arange(2.0 * width).reshape(width, 2),
    }
    bench.pipe.vae.load_lora_adapter(factors, prefix="vae", adapter_name="c")


def _by_a_pipeline_of_its_parts(bench: Bench) -> None:
    other = StableDiffusionPipeline(**bench.pipe.components, requires_safety_checker=False)
    other.load_lora_weights(bench.files.of_unet, adapter_name="c")
    bench.draw = lambda: bench.drawn(other)


def _by_from_pipe(bench: Bench) -> None:
    other = StableDiffusionImg2ImgPipeline.from_pipe(bench.pipe)
    other.load_lora_weights(bench.files.of_unet, adapter_name="c")


def _embedding_by_from_pipe(bench: Bench) -> None:
    other = StableDiffusionImg2ImgPipeline.from_pipe(bench.pipe)
    other.load_textual_inversion(bench.files.embedding, token="cat2")
    _call(bench, prompt="a cat2")


def _textual_inversion(bench: Bench) -> None:
    bench.pipe.load_textual_inversion(bench.files.embedding, token="cat2")
    _call(bench, prompt="a cat2")


def _a_pipeline_with_another_unet(bench: Bench) -> None:
    parts = bench.pipe.components | {"unet": _other("unet")}
    other = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    bench.draw = lambda: bench.drawn(other)


def _embeddings_of_another(bench: Bench) -> None:
    with torch.no_grad():
        made, _ = tiny_pipeline("sd", 7).encode_prompt("a red cat", "cpu", 1, False)
    _call(bench, prompt_embeds=made)


def _swapped(bench: Bench) -> None:
    bench.pipe.load_lora_weights(bench.files.of_unet, adapter_name="b", hotswap=True)


def _for_swapping(bench: Bench) -> None:
    tensors = bench.files.tensors(bench.files.of_unet)
    bench.pipe.load_lora_weights(
        {name: one * 2.0 for name, one in tensors.items()}, adapter_name="b"
    )


def _ip_adapter(bench: Bench) -> None:
    bench.pipe.load_ip_adapter(
        [bench.files.ip_adapter], subfolder="", weight_name="", image_encoder_folder=None
    )
    _call(bench, ip_adapter_image_embeds=[torch.ones(1, 1, WIDTH)])


PIPELINE = (
    Door("pipe.load_lora_weights(b)", lambda o: o.pipe.load_lora_weights(o.files.b), bare),
    Door('pipe.load_lora_weights(b, adapter_name="a", hotswap=True)', _swapped, _for_swapping),
    Door(
        "StableDiffusionPipeline.load_lora_weights(pipe, b)",
        lambda o: StableDiffusionPipeline.load_lora_weights(o.pipe, o.files.b),
    ),
    Door('pipe.set_adapters(["a", "b"])', lambda o: o.pipe.set_adapters(["a", "b"])),
    Door('pipe.set_adapters("a", 3.0)', lambda o: o.pipe.set_adapters("a", 3.0)),
    Door(
        'pipe.set_adapters("a", {"unet": {"down": 3.0}})',
        lambda o: o.pipe.set_adapters("a", {"unet": {"down": 3.0}}),
    ),
    Door("pipe.fuse_lora(lora_scale=3.0)", lambda o: o.pipe.fuse_lora(lora_scale=3.0)),
    Door("pipe.enable_lora()", lambda o: o.pipe.enable_lora(), _turned_off),
    Door("pipe.disable_lora()", lambda o: o.pipe.disable_lora()),
    Door('pipe.delete_adapters("b")', lambda o: o.pipe.delete_adapters("b"), both_active),
    Door("pipe.unload_lora_weights()", lambda o: o.pipe.unload_lora_weights()),
    Door(
        'pipe(cross_attention_kwargs={"scale": 3.0})',
        lambda o: _call(o, cross_attention_kwargs={"scale": 3.0}),
    ),
    Door("pipe.encode_prompt(lora_scale=3.0)", _encode),
    Door("pipe.load_lora_into_unet(...)", lambda o: _lora_into(o, "unet")),
    Door("pipe.load_lora_into_text_encoder(...)", lambda o: _lora_into(o, "text_encoder")),
    Door("pipe.load_textual_inversion(...)", _textual_inversion),
    Door("pipe.load_ip_adapter(...)", _ip_adapter, bare),
    Door("pipe.unet = other", lambda o: _exchange(o, "unet")),
    Door("pipe.text_encoder = other", lambda o: _exchange(o, "text_encoder")),
    Door("pipe.vae = other", lambda o: _exchange(o, "vae")),
    Door(
        "pipe.register_modules(unet=other)",
        lambda o: o.pipe.register_modules(unet=_other("unet")),
    ),
    Door(
        "StableDiffusionPipeline(**pipe.components).load_lora_weights(b)",
        _by_a_pipeline_of_its_parts,
    ),
    Door("Img2ImgPipeline.from_pipe(pipe).load_lora_weights(b)", _by_from_pipe),
    Door("Img2ImgPipeline.from_pipe(pipe).load_textual_inversion(...)", _embedding_by_from_pipe),
    Door("pipe.enable_freeu(...)", lambda o: o.pipe.enable_freeu(0.1, 0.1, 3.0, 3.0), bare),
    Door("pipe(prompt_embeds=...) that another model made", _embeddings_of_another),
    Door(
        "StableDiffusionPipeline(**pipe.components) with another unet",
        _a_pipeline_with_another_unet,
    ),
)

UNET = (
    Door(
        "pipe.unet.load_lora_adapter(b)",
        lambda o: o.pipe.unet.load_lora_adapter(o.files.b, prefix="unet", adapter_name="c"),
    ),
    Door('pipe.unet.load_lora_adapter(b, prefix="other")', _by_another_prefix),
    Door("pipe.vae.load_lora_adapter(...)", _into_vae),
    Door('pipe.unet.set_adapters("a", 3.0)', lambda o: o.pipe.unet.set_adapters("a", 3.0)),
    Door('pipe.unet.set_adapter(["a", "b"])', lambda o: o.pipe.unet.set_adapter(["a", "b"])),
    Door("pipe.unet.fuse_lora(3.0)", lambda o: o.pipe.unet.fuse_lora(3.0)),
    Door("pipe.unet.enable_lora()", lambda o: o.pipe.unet.enable_lora(), _turned_off),
    Door("pipe.unet.enable_adapters()", lambda o: o.pipe.unet.enable_adapters(), _turned_off),
    Door('pipe.unet.delete_adapters("b")', lambda o: o.pipe.unet.delete_adapters("b"), both_active),
    Door("pipe.unet.disable_adapters()", lambda o: o.pipe.unet.disable_adapters(), both_active),
    Door(
        "pipe.unet.load_attn_procs(...)",
        lambda o: o.pipe.unet.load_attn_procs(o.files.custom_diffusion, _pipeline=o.pipe),
        bare,
    ),
    Door(
        "pipe.unet.add_adapter(...)",
        lambda o: o.pipe.unet.add_adapter(config(), adapter_name="c"),
    ),
    Door(
        "pipe.unet.load_state_dict(...)",
        lambda o: o.pipe.unet.load_state_dict(_other("unet").state_dict()),
        bare,
    ),
    Door("scale_lora_layers(pipe.unet, 3.0)", lambda o: scale_lora_layers(o.pipe.unet, 3.0)),
)

TEXT_ENCODER = (
    Door(
        "pipe.text_encoder.load_adapter(...)",
        lambda o: o.pipe.text_encoder.load_adapter(o.files.of_text, adapter_name="c"),
    ),
    Door(
        "pipe.text_encoder.add_adapter(...)",
        lambda o: o.pipe.text_encoder.add_adapter(config(text=True), adapter_name="c"),
    ),
    Door('pipe.text_encoder.set_adapter("b")', lambda o: o.pipe.text_encoder.set_adapter("b")),
    Door(
        "pipe.text_encoder.enable_adapters()",
        lambda o: o.pipe.text_encoder.enable_adapters(),
        _turned_off,
    ),
    Door(
        'pipe.text_encoder.delete_adapter("b")',
        lambda o: o.pipe.text_encoder.delete_adapter("b"),
        both_active,
    ),
    Door(
        "scale_lora_layers(pipe.text_encoder, 3.0)",
        lambda o: scale_lora_layers(o.pipe.text_encoder, 3.0),
    ),
)
