"""Doors past diffusers: what peft, torch and plain Python can do to a pipeline's models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.hotswap import hotswap_adapter_from_state_dict
from safetensors.torch import load_file, load_model
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from testkit.guard_doors.bench import Bench, config
from testkit.guard_doors.door import Door, bare, both_active, one_active
from testkit.tiny_models import tiny_pipeline


def _each(bench: Bench, act: Any) -> None:
    for layer in bench.layers(bench.pipe.unet):
        act(layer)


def _first(bench: Bench) -> Any:
    return bench.layers(bench.pipe.unet)[0]


def _written(bench: Bench) -> None:
    with torch.no_grad():
        bench.pipe.unet.conv_in.weight.mul_(3.0)


def _data_written(bench: Bench) -> None:
    bench.pipe.unet.conv_in.weight.data.mul_(3.0)


def _data_exchanged(bench: Bench) -> None:
    weight = bench.pipe.unet.conv_in.weight
    weight.data = weight.data * 3.0


def _of_memory(bench: Bench) -> None:
    bench.pipe.unet.conv_in.weight.data.numpy()[:] *= 3.0


def _adapter_written(bench: Bench) -> None:
    _each(bench, lambda layer: layer.lora_B["a"].weight.data.mul_(3.0))


def _module(bench: Bench) -> None:
    bench.pipe.unet.conv_in = tiny_pipeline("sd", 7).unet.conv_in


def _hook(bench: Bench) -> None:
    bench.pipe.unet.conv_in.register_forward_hook(lambda *args: args[-1] * 3.0)


def _forward(bench: Bench) -> None:
    layer = bench.pipe.unet.conv_in
    own = layer.forward
    layer.forward = lambda given: own(given) * 3.0


def _processor(bench: Bench) -> None:
    class Stronger(AttnProcessor):
        """As loaders from before peft brought adapters in."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs) * 3.0

    bench.pipe.unet.set_attn_processor(Stronger())


def _parametrized(bench: Bench) -> None:
    class Thrice(torch.nn.Module):
        """As adapters that are no layers are put on."""

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 3.0

    parametrize.register_parametrization(bench.pipe.unet.conv_in, "weight", Thrice())


def _words(bench: Bench) -> None:
    encoder = bench.pipe.text_encoder
    bench.pipe.tokenizer.add_tokens("cat2")
    torch.manual_seed(8)
    encoder.resize_token_embeddings(len(bench.pipe.tokenizer))
    bench.draw = lambda: bench.drawn(prompt="a cat2")


def _row(bench: Bench) -> None:
    embeddings = bench.pipe.text_encoder.get_input_embeddings()
    with torch.no_grad():
        row = embeddings.weight[bench.pipe.tokenizer.convert_tokens_to_ids("cat")]
        row.copy_(torch.randn(row.shape, generator=torch.Generator().manual_seed(8)))


def _alias(bench: Bench) -> None:
    bench.pipe.tokenizer.add_tokens("cat2")
    # More words than embeddings: the encoder's own table is exchanged past its method.
    encoder = bench.pipe.text_encoder
    torch.manual_seed(9)
    table = torch.nn.Embedding(len(bench.pipe.tokenizer), encoder.config.hidden_size)
    owner = next(one for one in encoder.modules() if hasattr(one, "token_embedding"))
    owner.token_embedding = table
    bench.draw = lambda: bench.drawn(prompt="a cat2")


def _with(bench: Bench, made: Any) -> None:
    """Draws with a copy of the pipeline that got another adapter."""
    made.load_lora_weights(bench.files.b, adapter_name="c")
    bench.draw = lambda: bench.drawn(made)


def _copied_unet(bench: Bench) -> None:
    other = tiny_pipeline("sd")
    other.set_progress_bar_config(disable=True)
    other.unet = copy.deepcopy(bench.pipe.unet)
    _with(bench, other)


def _by_hand(bench: Bench) -> None:
    vars(bench.pipe)["unet"] = tiny_pipeline("sd", 7).unet


def _on_the_class(bench: Bench) -> None:
    """A class for which all models of a kind stand; given back after one picture."""
    own = UNet2DConditionModel.forward

    def stronger(model: Any, *args: Any, **kwargs: Any) -> Any:
        made = own(model, *args, **kwargs)
        return (made[0] * 3.0, *made[1:])

    def draw() -> torch.Tensor:
        UNet2DConditionModel.forward = stronger
        try:
            return bench.drawn()
        finally:
            UNet2DConditionModel.forward = own

    bench.draw = draw


def _on_all_modules(bench: Bench) -> None:
    """A hook of torch for every module there is; taken away after one picture."""

    def stronger(module: Any, _given: Any, made: Any) -> Any:
        return made * 3.0 if isinstance(module, torch.nn.Conv2d) else made

    def draw() -> torch.Tensor:
        hook = register_module_forward_hook(stronger)
        try:
            return bench.drawn()
        finally:
            hook.remove()

    bench.draw = draw


def _by_forward(bench: Bench) -> None:
    """A model whose forward is called by its name, as programs should not."""
    one_active(bench)
    unet = bench.pipe.unet

    def draw() -> torch.Tensor:
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        words = torch.ones(1, 3, unet.config.cross_attention_dim)
        with torch.no_grad():
            made: torch.Tensor = unet.forward(noise, torch.tensor([500]), words).sample
        return made

    bench.draw = draw


def _number(bench: Bench) -> None:
    bench.pipe.unet.conv_norm_out.eps = 3.0


def _callback(bench: Bench) -> None:
    def end(*args: Any) -> dict[str, Any]:
        tensors = args[-1]
        return {"latents": tensors["latents"] * 3.0}

    bench.draw = lambda: bench.drawn(callback_on_step_end=end)


def _twice(bench: Bench) -> None:
    _each(bench, lambda layer: layer.set_adapter(["a", "a"]))


def _in_one_layer(bench: Bench) -> None:
    _first(bench).set_adapter(["b"])


def _swap(bench: Bench) -> None:
    saved = load_file(f"{bench.files.of_peft}/adapter_model.safetensors")
    tensors = {
        name.removeprefix("base_model.model.").replace(".weight", ".a.weight"): one
        for name, one in saved.items()
    }
    hotswap_adapter_from_state_dict(bench.pipe.unet, tensors, "a", config())


def _peft_in_a_part(bench: Bench) -> None:
    inject_adapter_in_model(config(), bench.pipe.unet.mid_block, "c")


PEFT = (
    Door(
        "inject_adapter_in_model(..., pipe.unet)",
        lambda o: inject_adapter_in_model(config(), o.pipe.unet, "c"),
        bare,
    ),
    Door("inject_adapter_in_model(..., pipe.unet.mid_block)", _peft_in_a_part, bare),
    Door("get_peft_model(pipe.unet, ...)", lambda o: get_peft_model(o.pipe.unet, config()), bare),
    Door(
        "PeftModel.from_pretrained(pipe.unet, ...)",
        lambda o: PeftModel.from_pretrained(o.pipe.unet, o.files.of_peft),
        bare,
    ),
    Door('hotswap_adapter_from_state_dict(pipe.unet, ..., "a")', _swap),
    Door(
        'layer.set_scale("a", 3.0)',
        lambda o: _each(o, lambda layer: layer.set_scale("a", 3.0)),
    ),
    Door("layer.scale_layer(3.0)", lambda o: _each(o, lambda layer: layer.scale_layer(3.0))),
    Door("layer.unscale_layer()", lambda o: _each(o, LoraLayer.unscale_layer)),
    Door(
        'layer.scaling["a"] = 3.0',
        lambda o: _each(o, lambda layer: layer.scaling.update(a=3.0)),
    ),
    Door(
        'layer.set_adapter(["a", "b"]) of all layers',
        lambda o: _each(o, lambda layer: layer.set_adapter(["a", "b"])),
    ),
    Door('layer.set_adapter(["a", "a"])', _twice),
    Door('layer.set_adapter(["b"]) of one layer', _in_one_layer),
    Door(
        "layer.enable_adapters(False) of one layer",
        lambda o: _first(o).enable_adapters(False),
        both_active,
    ),
    Door("layer.merge()", lambda o: _each(o, lambda layer: layer.merge(adapter_names=["b"]))),
    Door('layer.lora_B["a"].weight.data.mul_(3.0)', _adapter_written),
    Door(
        'layer.delete_adapter("b") of one layer',
        lambda o: _first(o).delete_adapter("b"),
        both_active,
    ),
)

TORCH = (
    Door("pipe.unet.conv_in.weight.mul_(3.0)", _written, bare),
    Door("pipe.unet.conv_in.weight.data.mul_(3.0)", _data_written, bare),
    Door("pipe.unet.conv_in.weight.data = other", _data_exchanged, bare),
    Door("pipe.unet.conv_in.weight.data.numpy()[:] *= 3.0", _of_memory, bare),
    Door("pipe.unet.conv_in = other", _module, bare),
    Door(
        "load_model(pipe.unet, file) of safetensors",
        lambda o: load_model(o.pipe.unet, o.files.unet),
        bare,
    ),
    Door("pipe.unet.conv_in.register_forward_hook(...)", _hook, bare),
    Door("pipe.unet.conv_in.forward = other", _forward, bare),
    Door("pipe.unet.set_attn_processor(other)", _processor, bare),
    Door('register_parametrization(pipe.unet.conv_in, "weight", ...)', _parametrized, bare),
    Door("pipe.text_encoder.resize_token_embeddings(...)", _words, bare),
    Door("the embedding of a word, written to", _row, bare),
    Door("tokenizer.add_tokens(...) and another table of embeddings", _alias, bare),
)

PYTHON = (
    Door("copy.deepcopy(pipe)", lambda o: _with(o, copy.deepcopy(o.pipe))),
    Door("copy.copy(pipe)", lambda o: _with(o, copy.copy(o.pipe))),
    Door(
        "pickle.loads(pickle.dumps(pipe))", lambda o: _with(o, pickle.loads(pickle.dumps(o.pipe)))
    ),
    Door("copy.deepcopy(pipe.unet) in another pipeline", _copied_unet, bare),
    Door('vars(pipe)["unet"] = other', _by_hand, bare),
    Door("UNet2DConditionModel.forward = other", _on_the_class, bare),
    Door("register_module_forward_hook(...) of torch", _on_all_modules, bare),
    Door(
        'pipe.unet.forward(...), after layer.set_scale("a", 3.0)',
        lambda o: _each(o, lambda layer: layer.set_scale("a", 3.0)),
        _by_forward,
    ),
    Door("pipe.unet.conv_norm_out.eps = 3.0", _number, bare),
    Door("pipe(callback_on_step_end=...) that changes latents", _callback, bare),
)
