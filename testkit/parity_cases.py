"""The cases of `benchmarks.parity`: one maker per family and format, which writes the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from peft import LoHaConfig, LoKrConfig

from loragate_server.adapter.reference import Strength
from testkit import adapter_files as files
from testkit.adapter_files import Case
from testkit.parity_names import LAYOUTS

Maker = Callable[[Path], Case]


def _diffusers(family: str, targets: str, text: tuple[str, ...] = (), **options: object) -> Maker:
    denoiser = "unet" if family in ("sd", "sdxl") else "transformer"

    def make(folder: Path) -> Case:
        tensors, metadata = {}, {}
        for component in (denoiser, *text):
            config = files.lora(targets if component == denoiser else files.TEXT, **options)
            module, _ = files.donor(family, component, config)
            state = files.adapter_state(module)
            tensors |= files.prefixed(state, component)
            layers = sorted({name.partition(".lora_")[0] for name in state})
            saved = config.to_dict() | {"target_modules": layers}
            metadata |= {f"{component}.{key}": value for key, value in saved.items()}
        return files.loaded_by_diffusers(family, files.save(folder, tensors, metadata))

    return make


def _without_metadata(family: str, targets: str, **options: object) -> Maker:
    denoiser = "unet" if family in ("sd", "sdxl") else "transformer"

    def make(folder: Path) -> Case:
        module, _ = files.donor(family, denoiser, files.lora(targets, **options))
        tensors = files.prefixed(files.adapter_state(module), denoiser)
        return files.loaded_by_diffusers(family, files.save(folder, tensors))

    return make


def _old_diffusers(folder: Path) -> Case:
    module, _ = files.donor("sd", "unet", files.lora(files.ATTENTION))
    tensors = files.prefixed(files.old_diffusers_names(files.adapter_state(module)), "unet")
    return files.loaded_by_diffusers("sd", files.save(folder, tensors))


def _kohya(
    family: str,
    targets: str,
    text: tuple[tuple[str, str], ...] = (),
    rename: Callable[[str], str] = files.same,
    alpha: Callable[[str], float] = lambda _: 6,
) -> Maker:
    def make(folder: Path) -> Case:
        module, _ = files.donor(family, "unet", files.lora(targets))
        tensors = files.kohya_names(files.adapter_state(module), "lora_unet", alpha, rename)
        for component, prefix in text:
            encoder, _ = files.donor(family, component, files.lora(files.TEXT))
            state = files.text_names(files.adapter_state(encoder))
            tensors |= files.kohya_names(state, prefix, alpha, files.same)
        return files.loaded_by_diffusers(family, files.save(folder, tensors))

    return make


def _kohya_flux(folder: Path) -> Case:
    """Kohya's Flux names: fused q, k, v of the double blocks, and the text encoder."""
    inner, generator = 32, torch.Generator().manual_seed(5)

    def pair(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.lora_down.weight": 0.2 * torch.randn(4, columns, generator=generator),
            f"{name}.lora_up.weight": 0.2 * torch.randn(rows, 4, generator=generator),
            f"{name}.alpha": torch.tensor(6.0),
        }

    tensors: dict[str, torch.Tensor] = {}
    for block in range(2):
        start = f"lora_unet_double_blocks_{block}"
        for stream in ("img", "txt"):
            tensors |= pair(f"{start}_{stream}_attn_qkv", 3 * inner, inner)
            tensors |= pair(f"{start}_{stream}_attn_proj", inner, inner)
            tensors |= pair(f"{start}_{stream}_mlp_0", 4 * inner, inner)
            tensors |= pair(f"{start}_{stream}_mlp_2", inner, 4 * inner)
            tensors |= pair(f"{start}_{stream}_mod_lin", 6 * inner, inner)
        single = f"lora_unet_single_blocks_{block}"
        tensors |= pair(f"{single}_linear2", inner, 5 * inner)
        tensors |= pair(f"{single}_modulation_lin", 3 * inner, inner)
    encoder, _ = files.donor("flux", "text_encoder", files.lora(files.TEXT))
    state = files.text_names(files.adapter_state(encoder))
    tensors |= files.kohya_names(state, "lora_te1", lambda _: 6, files.same)
    return files.loaded_by_diffusers("flux", files.save(folder, tensors))


def _xlabs_flux(folder: Path) -> Case:
    """XLabs' names: attention only, with fused q, k, v and without alphas."""
    inner, generator = 32, torch.Generator().manual_seed(6)

    def pair(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.down.weight": 0.2 * torch.randn(4, columns, generator=generator),
            f"{name}.up.weight": 0.2 * torch.randn(rows, 4, generator=generator),
        }

    tensors: dict[str, torch.Tensor] = {}
    for block in range(2):
        start = f"double_blocks.{block}.processor"
        for stream in (1, 2):  # of the picture and of the text
            tensors |= pair(f"{start}.qkv_lora{stream}", 3 * inner, inner)
            tensors |= pair(f"{start}.proj_lora{stream}", inner, inner)
        single = f"single_blocks.{block}.processor"
        tensors |= pair(f"{single}.qkv_lora", 3 * inner, inner)
        tensors |= pair(f"{single}.proj_lora", inner, 5 * inner)
    return files.loaded_by_diffusers("flux", files.save(folder, tensors))


def _flux_with_alphas(folder: Path) -> Case:
    """Diffusers' names with an alpha beside each pair, as ai-toolkit's forks have them."""
    module, _ = files.donor("flux", "transformer", files.lora(files.TRANSFORMER))
    state = files.prefixed(files.adapter_state(module), "transformer")
    layers = {name.partition(".lora_")[0] for name in state}
    alphas = {f"{layer}.alpha": torch.tensor(6.0) for layer in sorted(layers)}
    return files.loaded_by_diffusers("flux", files.save(folder, state | alphas))


def _at(family: str, name: str, strength: Strength) -> Maker:
    """An earlier case's file, used at another strength."""

    def make(folder: Path) -> Case:
        file = CASES[family][name](folder).file
        return files.loaded_by_diffusers(family, file, strength)

    return make


def _peft(family: str, component: str, config: Callable[[], object]) -> Maker:
    return lambda folder: files.saved_by_peft(family, component, config(), folder)


def _loha(targets: str, **options: object) -> Callable[[], LoHaConfig]:
    return lambda: LoHaConfig(r=4, alpha=6, target_modules=targets, **options)


def _lokr(targets: str, **options: object) -> Callable[[], LoKrConfig]:
    return lambda: LoKrConfig(r=2, alpha=3, target_modules=targets, **options)


def _lycoris(
    family: str, config: Callable[[], LoHaConfig | LoKrConfig], rename: Callable[[str], str]
) -> Maker:
    return lambda folder: files.lycoris(family, config(), folder, rename)


def _by_kind(module: str) -> float:
    """One alpha for attention, others for the rest, as trainers with a convolution alpha write."""
    return 6 if "attn" in module else 2 if "conv" in module else 3


_SGM = files.sgm_module(layers_per_block=2)
_SDXL_TEXT = (("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2"))
_DECOMPOSED = {"decompose_both": True, "use_effective_conv2d": True}

CASES: dict[str, dict[str, Maker]] = {
    "sd": {
        "diffusers": _diffusers("sd", files.UNET_MIXED, ("text_encoder",)),
        "diffusers, no metadata": _without_metadata("sd", files.UNET_MIXED),
        "diffusers, mixed ranks": _without_metadata(
            "sd", files.UNET_MIXED, rank_pattern={"to_k": 2}
        ),
        "diffusers, rsLoRA and patterns": _diffusers(
            "sd",
            files.UNET_MIXED,
            use_rslora=True,
            rank_pattern={"to_k": 2},
            alpha_pattern={"to_v": 9},
        ),
        "diffusers, with bias": _without_metadata("sd", files.UNET_CONV, lora_bias=True),
        "diffusers, old names": _old_diffusers,
        "diffusers, DoRA": _diffusers("sd", files.UNET_MIXED, use_dora=True),
        "diffusers, DoRA conv": _diffusers("sd", files.UNET_CONV, use_dora=True),
        "kohya": _kohya("sd", files.UNET_MIXED, (("text_encoder", "lora_te"),)),
        "kohya LoCon": _kohya("sd", files.UNET_CONV),
        "kohya LoCon, mixed alphas": _kohya(
            "sd", files.UNET_CONV, (("text_encoder", "lora_te"),), alpha=_by_kind
        ),
        "peft folder": _peft("sd", "unet", lambda: files.lora(files.UNET_CONV)),
        "peft folder, DoRA": _peft(
            "sd", "unet", lambda: files.lora(files.UNET_CONV, use_dora=True)
        ),
        "peft folder, text encoder": _peft("sd", "text_encoder", lambda: files.lora(files.TEXT)),
        "LoHa": _lycoris("sd", _loha(files.UNET_CONV), files.same),
        "LoHa, Tucker": _lycoris(
            "sd", _loha(files.UNET_CONV, use_effective_conv2d=True), files.same
        ),
        "LoHa, peft folder": _peft("sd", "unet", _loha(files.UNET_CONV)),
        "LoKr": _lycoris("sd", _lokr(files.UNET_CONV), files.same),
        "LoKr, Tucker": _lycoris("sd", _lokr(files.UNET_CONV, **_DECOMPOSED), files.same),
        "LoKr, peft folder": _peft("sd", "unet", _lokr(files.UNET_CONV, decompose_both=True)),
    },
    "sdxl": {
        "diffusers": _diffusers("sdxl", files.UNET_MIXED, ("text_encoder", "text_encoder_2")),
        "kohya": _kohya("sdxl", files.UNET_MIXED, _SDXL_TEXT),
        "kohya, SGM names": _kohya("sdxl", files.UNET_MIXED, _SDXL_TEXT, _SGM),
        "kohya LoCon, SGM names": _kohya("sdxl", files.UNET_CONV, (), _SGM),
        "peft folder": _peft("sdxl", "unet", lambda: files.lora(files.UNET_MIXED)),
        "diffusers, DoRA": _diffusers("sdxl", files.UNET_MIXED, use_dora=True),
        "LoHa, SGM names": _lycoris("sdxl", _loha(files.UNET_CONV), _SGM),
        "LoKr, SGM names": _lycoris("sdxl", _lokr(files.UNET_CONV), _SGM),
    },
    "sd3": {
        "diffusers": _diffusers("sd3", files.TRANSFORMER, ("text_encoder", "text_encoder_2")),
        "diffusers, no metadata": _without_metadata("sd3", files.TRANSFORMER),
        "diffusers, DoRA": _diffusers("sd3", files.TRANSFORMER, use_dora=True),
        "peft folder": _peft("sd3", "transformer", lambda: files.lora(files.TRANSFORMER)),
        "LoHa, peft folder": _peft("sd3", "transformer", _loha(files.TRANSFORMER)),
        "LoKr, peft folder": _peft("sd3", "transformer", _lokr(files.TRANSFORMER)),
    },
    "flux": {
        "diffusers": _diffusers("flux", files.TRANSFORMER, ("text_encoder",)),
        "diffusers, no metadata": _without_metadata("flux", files.TRANSFORMER),
        "diffusers, DoRA": _diffusers("flux", files.TRANSFORMER, use_dora=True),
        "kohya": _kohya_flux,
        "XLabs": _xlabs_flux,
        "ai-toolkit, with alphas": _flux_with_alphas,
        "peft folder": _peft("flux", "transformer", lambda: files.lora(files.TRANSFORMER)),
        "LoHa, peft folder": _peft("flux", "transformer", _loha(files.TRANSFORMER)),
        "LoKr, peft folder": _peft("flux", "transformer", _lokr(files.TRANSFORMER)),
    },
}
for _family, _layouts in LAYOUTS.items():
    CASES[_family].update(_layouts)

_STRENGTHS = (Strength(1.0, 1.0), Strength(-0.8, 0.0), Strength(2.5, -1.3))
for _family, _name in (("sd", "kohya"), ("sd", "diffusers, DoRA"), ("flux", "diffusers")):
    for _strength in _STRENGTHS:
        _label = f"{_name} at {_strength.denoiser} / {_strength.text_encoder}"
        CASES[_family][_label] = _at(_family, _name, _strength)


CHOSEN = {
    ("sd", "LyCORIS names, LoRA"),
    ("sd", "full, with biases"),
    ("sd", "kohya, 1x1 as linear layers"),
    ("sd", "kohya, float8_e4m3fn"),
    ("sdxl", "kohya, text projection"),
    ("sd3", "kohya, original names"),
    ("sd3", "full, original names"),
    ("flux", "original names, lora_A"),
    ("flux", "kohya, original names"),
    ("flux", "LyCORIS names, LoKr"),
}
"""Of the layouts that people's files have, those that every run looks at; all take two minutes."""


def every_case() -> Iterator[tuple[str, str]]:
    """Family and format of every case."""
    return ((family, name) for family, cases in CASES.items() for name in cases)


def chosen_cases() -> Iterator[tuple[str, str]]:
    """Those that every run looks at."""
    return (
        (family, name)
        for family, name in every_case()
        if (family, name) in CHOSEN or name not in LAYOUTS[family]
    )


def every_file(cases: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Without the cases that are an earlier one's file at another strength."""
    return ((family, name) for family, name in cases if " at " not in name)
