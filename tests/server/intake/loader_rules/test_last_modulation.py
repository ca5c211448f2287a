"""The last modulations of transformers, whose halves original checkpoints have in another order.

What a loader adds to the weights of an original checkpoint is put through diffusers' own
conversion of such checkpoints, and has to come out as what is read for that loader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.loader_parity.compare import VOUCHED, compare
from benchmarks.loader_parity.files import AdapterFile
from loragate_server.adapter.adapter import ModuleRef, Readings
from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models.apply import layer_shape
from testkit import published_keys as published
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd

DOWN_UP = (".lora_down.weight", ".lora_up.weight")
AB = (".lora_A.weight", ".lora_B.weight")
RANK, ALPHA = 2, 3.0
LAST = 1
"""Number of the last block of the tiny Stable Diffusion 3."""
FINAL, TEXT = (
    "final_layer.adaLN_modulation.1",
    f"joint_blocks.{LAST}.context_block.adaLN_modulation.1",
)
IN_DIFFUSERS = {
    FINAL: "norm_out.linear",
    TEXT: f"transformer_blocks.{LAST}.norm1_context.linear",
}


class Changes(dict[str, Tensor]):
    """A checkpoint of changes: whatever else it is asked for does not change."""

    def pop(self, name: str, *_: object) -> Tensor:
        single = "single_blocks" in name and "linear1" in name  # split by Flux' own widths
        return super().pop(name, torch.zeros(3 * 3072 + 12288 if single else 3, 2))


def converted(family: str, changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Changes of an original checkpoint's weights, as diffusers' own layers have them."""
    given = Changes({f"{name}.weight": change for name, change in changes.items()})
    names = {original for _, original, _ in published.sd3_originals(shared_base("sd3"))}
    if family == "flux":
        names = {"double_blocks.0.img_mlp.0", "single_blocks.0.linear2"}
    for name in names:
        given.setdefault(f"{name}.weight", torch.zeros(3, 2))
    convert: Callable[..., dict[str, Tensor]] = (
        convert_sd3_transformer_checkpoint_to_diffusers
        if family == "sd3"
        else convert_flux_transformer_checkpoint_to_diffusers
    )
    made = convert(given)
    return {
        name.removesuffix(".weight"): change
        for name, change in made.items()
        if name.endswith(".weight") and change.any()
    }


def pair(family: str, layers: list[str], seed: int = 0) -> tuple[Tensor, Tensor]:
    weights = [layer_shape(shared_base(family).denoiser.get_submodule(n)).weight for n in layers]
    generator = torch.Generator().manual_seed(seed)
    ones = (1,) * (weights[0].dim() - 2)
    rows = sum(len(weight) for weight in weights)
    return (
        torch.randn(RANK, *weights[0].shape[1:], generator=generator),
        torch.randn(rows, RANK, *ones, generator=generator),
    )


def product(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def read(
    folder: Path, family: str, tensors: Mapping[str, Tensor], *loaders: str
) -> tuple[Readings, list[dict[str, Tensor]]]:
    """The readings of a file, and the changes of each as dense weights by layer."""
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    base = shared_base(family)
    stored = StoredFile("0" * 64, path.stat().st_size, path)
    found = read_adapter(stored, base, loaders=loaders)
    layers = base.adaptable_modules()

    def dense(ref: ModuleRef, delta: object) -> Tensor:
        return delta.dense(layer_shape(layers[ref.component, ref.module]), 1.0)  # type: ignore[attr-defined,no-any-return]

    return found, [
        {ref.module: dense(ref, delta) for ref, delta in one.deltas.items()}
        for one in found.adapters
    ]


def complete(found: Readings) -> bool:
    return not found.doubts and all(one.coverage.complete for one in found.adapters)


def require_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for layer, change in theirs.items():
        torch.testing.assert_close(ours[layer], change, rtol=1e-5, atol=1e-5)


def test_a_lora_of_kohya_s_trainer_for_sd3_is_read_in_full(tmp_path: Path) -> None:
    """It always holds the last block's modulation of texts; here it holds every layer."""
    tensors: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    of: dict[str, list[str]] = {}
    for layer, original, _ in published.sd3_originals(shared_base("sd3")):
        of.setdefault(original, []).append(layer)
    for seed, (original, layers) in enumerate(of.items()):
        stem = "lora_unet_" + original.replace(".", "_")
        down, up = pair("sd3", layers, seed)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
        changes[original] = ALPHA / RANK * product(down, up)
    found, (ours,) = read(tmp_path, "sd3", tensors, "comfyui")
    assert complete(found)
    require_same(ours, converted("sd3", changes))
    both, _ = read(tmp_path, "sd3", tensors, "comfyui", "a1111")
    ((loader, why),) = both.doubts
    assert "a1111" in loader + why
    assert "Forge reads" in why


def read_as_named(
    family: str, layer: str, start: str, name: str, ends: tuple[str, str], folder: Path
) -> tuple[Tensor, dict[str, Tensor]]:
    """A change of a layer under a name, and what ComfyUI makes of a file of it."""
    down, up = pair(family, [layer])
    stem = start + (name.replace(".", "_") if start.endswith("_") else name)
    found, (ours,) = read(folder, family, {stem + ends[0]: down, stem + ends[1]: up}, "comfyui")
    assert complete(found)
    return product(down, up), ours


ORIGINAL = [
    ("sd3", FINAL, "lora_unet_", DOWN_UP),
    ("sd3", TEXT, "lora_unet_", DOWN_UP),
    ("sd3", TEXT, "diffusion_model.", AB),
    ("flux", FINAL, "lora_unet_", DOWN_UP),
    ("flux", FINAL, "diffusion_model.", AB),
]


@pytest.mark.parametrize(("family", "original", "start", "ends"), ORIGINAL)
def test_under_an_original_name_halves_change_places(
    family: str, original: str, start: str, ends: tuple[str, str], tmp_path: Path
) -> None:
    layer = IN_DIFFUSERS[original]
    change, ours = read_as_named(family, layer, start, original, ends, tmp_path)
    theirs = converted(family, {original: change})
    require_same(ours, theirs)
    assert not torch.allclose(theirs[layer], change)


IN_ORDER = [
    ("sd3", FINAL, "lora_transformer_", DOWN_UP),
    ("sd3", FINAL, "lycoris_", DOWN_UP),
    ("sd3", FINAL, "transformer.", DOWN_UP),
    ("sd3", TEXT, "lora_transformer_", DOWN_UP),
    ("flux", FINAL, "lora_transformer_", DOWN_UP),
    ("flux", FINAL, "lycoris_", DOWN_UP),
    ("flux", FINAL, "transformer.", AB),
    ("flux", FINAL, "", AB),
]


@pytest.mark.parametrize(("family", "original", "start", "ends"), IN_ORDER)
def test_under_a_name_of_diffusers_a_change_stands_as_it_is_written(
    family: str, original: str, start: str, ends: tuple[str, str], tmp_path: Path
) -> None:
    layer = IN_DIFFUSERS[original]
    change, ours = read_as_named(family, layer, start, layer, ends, tmp_path)
    require_same(ours, {layer: change})


@pytest.mark.parametrize(
    ("stem", "loader"),
    [
        ("lora_unet_final_layer_adaLN_modulation_1", "comfyui"),
        ("diffusion_model.final_layer.adaLN_modulation.1", "a1111"),
        ("lycoris_norm_out_linear", "a1111"),  # Forge adds whole changes without a turn
    ],
)
def test_a_whole_change_in_another_order_is_not_read_and_its_cause_is_told(
    stem: str, loader: str, tmp_path: Path
) -> None:
    weight = layer_shape(shared_base("flux").denoiser.get_submodule("norm_out.linear")).weight
    found, _ = read(tmp_path, "flux", {f"{stem}.diff": torch.randn(weight.shape)}, loader)
    assert not complete(found)
    assert any("whose halves trainers write in two orders" in why for _, why in found.doubts)


@pytest.mark.parametrize("bias", [False, True])
def test_a_whole_change_in_the_layer_s_order_is_read_without_a_bias_alone(
    bias: bool, tmp_path: Path
) -> None:
    """ComfyUI turns the change of the weight, and puts that of the bias nowhere."""
    weight = layer_shape(shared_base("flux").denoiser.get_submodule("norm_out.linear")).weight
    change = torch.randn(weight.shape)
    tensors = {"lycoris_norm_out_linear.diff": change}
    if bias:
        tensors["lycoris_norm_out_linear.diff_b"] = torch.randn(len(weight))
    found, readings = read(tmp_path, "flux", tensors, "comfyui")
    assert complete(found) is not bias
    if not bias:
        require_same(readings[0], {"norm_out.linear": change})


@pytest.mark.parametrize("loader", ["comfyui", "a1111"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_beside_a_whole_change_of_some_rows_is_put_nowhere(
    bias: bool, loader: str, tmp_path: Path
) -> None:
    """A query is rows of one layer there, and a place is no name that a bias could follow."""
    layer = "transformer_blocks.0.attn.to_q"
    weight = layer_shape(shared_base("flux").denoiser.get_submodule(layer)).weight
    change = torch.randn(weight.shape)
    tensors = {"lycoris_transformer_blocks_0_attn_to_q.diff": change}
    if bias:
        tensors["lycoris_transformer_blocks_0_attn_to_q.diff_b"] = torch.randn(len(weight))
    found, readings = read(tmp_path, "flux", tensors, loader)
    assert complete(found) is not bias
    if not bias:
        require_same(readings[0], {layer: change})


def test_factors_in_the_layer_s_order_are_read_and_turned_ones_are_not(tmp_path: Path) -> None:
    weight = layer_shape(shared_base("sd3").denoiser.get_submodule("norm_out.linear")).weight
    first, second = torch.randn(2, 1), torch.randn(len(weight) // 2, weight.shape[1])

    def lokr(stem: str) -> dict[str, Tensor]:
        return {f"{stem}.lokr_w1": first, f"{stem}.lokr_w2": second}

    found, (ours,) = read(tmp_path, "sd3", lokr("lycoris_norm_out_linear"), "comfyui")
    assert complete(found)
    require_same(ours, {"norm_out.linear": torch.kron(first, second)})
    turned, _ = read(tmp_path, "sd3", lokr(f"diffusion_model.{FINAL}"), "comfyui")
    assert not complete(turned)


def test_a_change_of_another_size_is_told_by_its_shape(tmp_path: Path) -> None:
    stem = "lora_unet_final_layer_adaLN_modulation_1"
    tensors = {stem + DOWN_UP[0]: torch.randn(2, 8), stem + DOWN_UP[1]: torch.randn(6, 2)}
    found, _ = read(tmp_path, "flux", tensors, "comfyui")
    assert not complete(found)
    assert any("the file's change of it has (6, 8)" in why for _, why in found.doubts)


ROOTS = {
    "context_embedder": "context_embedder",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    FINAL: "norm_out.linear",
}


@pytest.mark.parametrize("original", list(ROOTS))
def test_what_sd3_has_outside_of_its_blocks_is_changed_by_a1111_and_forge(
    original: str, tmp_path: Path
) -> None:
    """Beside an attention that AUTOMATIC1111 knows, which is not all that it changes."""
    attention = [f"transformer_blocks.0.attn.to_{end}" for end in "qkv"]
    tensors: dict[str, Tensor] = {}
    for seed, layer in enumerate(attention):
        down, up = pair("sd3", [layer], seed)
        tensors |= {f"transformer.{layer}{AB[0]}": down, f"transformer.{layer}{AB[1]}": up}
    down, up = pair("sd3", [ROOTS[original]], 7)
    stem = "lora_unet_" + original.replace(".", "_")
    tensors |= {stem + DOWN_UP[0]: down, stem + DOWN_UP[1]: up}
    _, readings = read(tmp_path, "sd3", tensors, "a1111")
    theirs = converted("sd3", {original: product(down, up)})
    for layers in ({ROOTS[original]}, {*attention, ROOTS[original]}):  # Forge, AUTOMATIC1111
        (ours,) = [one for one in readings if one.keys() == layers]
        require_same({ROOTS[original]: ours[ROOTS[original]]}, theirs)


INPUTS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer_linear": "proj_out",
    "final_layer_adaLN_modulation_1": "norm_out.linear",
}


def of_flux(alpha: float | None) -> dict[str, Tensor]:
    """Layers outside of the blocks, beside one that diffusers has a place for."""
    layers = {"double_blocks_0_img_attn_proj": "transformer_blocks.0.attn.to_out.0", **INPUTS}
    tensors: dict[str, Tensor] = {}
    for seed, (name, layer) in enumerate(layers.items()):
        down, up = pair("flux", [layer], seed)
        stem = f"lora_unet_{name}"
        tensors |= {stem + DOWN_UP[0]: down, stem + DOWN_UP[1]: up}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize("alpha", [None, ALPHA, 4000.0])
def test_what_diffusers_names_after_no_component_is_known_to_be_left_out(
    alpha: float | None, tmp_path: Path
) -> None:
    tensors = of_flux(alpha)
    assert compare("flux", "diffusers", AdapterFile(tensors, {})) == VOUCHED
    found, readings = read(tmp_path, "flux", tensors, "diffusers")
    assert complete(found)
    assert all(one.keys() == {"transformer_blocks.0.attn.to_out.0"} for one in readings)
    if alpha != 4000.0:  # beyond what is ordinary there are more
        assert len(readings) == 1


def test_sglang_is_not_vouched_for_where_diffusers_leaves_layers_out(tmp_path: Path) -> None:
    tensors = of_flux(ALPHA)
    assert not complete(read(tmp_path, "flux", tensors, "sglang")[0])
    found, _ = read(tmp_path, "flux", tensors, "diffusers", "sglang")
    assert {one.coverage.complete: one.loaders for one in found.adapters} == {
        True: ("diffusers",),
        False: ("sglang",),
    }
