"""Are the deltas what other loaders apply? `python -m benchmarks.parity` measures and writes it.

For every family and format, the adapted rows of one forward pass are compared with the output of
a second pipeline that has loaded the same file by itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from peft import LoHaConfig, LoKrConfig

from benchmarks import adapter_files as files
from benchmarks.adapter_files import Case
from benchmarks.report import write
from benchmarks.tiny_models import tiny_base
from loragate_server.intake.adapter import Adapter, StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models import BaseModel, Conditioning, from_pipeline
from loragate_server.models.apply import RowPlan, adapted_rows, adapted_text

TOLERANCE = 2e-5
"""Largest difference allowed: this share of the largest change by the adapter, plus 2e-6."""


@dataclass(frozen=True)
class Parity:
    """One line of the table.

    Attributes:
        effect: largest absolute change of an output value that the reference shows.
        error: largest absolute difference between our output and the reference's.
        text_effect, text_error: the same for the text encoders' output; 0 where the adapter leaves
            them alone.
        base_error: difference of the base rows to a pass without adapter, in the same batch shape.
        unmapped: tensors that were not understood.
    """

    family: str
    format: str
    recognised_as: str
    layers: int
    effect: float
    error: float
    text_effect: float
    text_error: float
    base_error: float
    unmapped: int

    @property
    def holds(self) -> bool:
        """Whether ours equals theirs, and the comparison could have failed."""
        close = self.error <= 2e-6 + TOLERANCE * self.effect
        text_close = self.text_error <= 2e-6 + TOLERANCE * self.text_effect
        undisturbed = self.base_error == 0.0 and self.unmapped == 0
        return close and text_close and undisturbed and self.effect > 1e-3


def measure(family: str, name: str, folder: Path) -> Parity:
    """Makes the case `name` of `family` in `folder` and compares."""
    return compare(family, name, CASES[family][name](folder))


def compare(family: str, name: str, case: Case) -> Parity:
    """Compares our adapted rows with the case's reference."""
    base = tiny_base(family)
    adapter = read_adapter(stored(case), base)
    reference = from_pipeline(case.reference, "reference", picture_size=base.picture_size)
    latents, times, told = _inputs(base)
    with torch.inference_mode():
        with adapted_text(base, adapter.deltas, case.strength):
            told_adapted = base.encode_prompts(PROMPTS)
        told_reference = reference.encode_prompts(PROMPTS)
        both = Conditioning.cat([told, told_adapted])
        twice, times_twice = latents.repeat(2, 1, 1, 1), times.repeat(2)
        rows = slice(len(latents), 2 * len(latents))
        with adapted_rows(base, [RowPlan(rows, adapter.deltas, case.strength)]):
            ours = base.denoise(twice, times_twice, both)
        bare = base.denoise(twice, times_twice, both)
        theirs = reference.denoise(latents, times, told_reference)
        plain = base.denoise(latents, times, told)
    return Parity(
        family=family,
        format=name,
        recognised_as=adapter.format,
        layers=adapter.coverage.matched_modules,
        effect=float((theirs - plain).abs().max()),
        error=float((ours[rows] - theirs).abs().max()),
        text_effect=_difference(told_reference, told),
        text_error=_difference(told_adapted, told_reference),
        base_error=float((ours[: rows.start] - bare[: rows.start]).abs().max()),
        unmapped=len(adapter.coverage.unmapped),
    )


PROMPTS = ["a red cat", "a picture of blue grass"]


def stored(case: Case) -> StoredFile:
    """The case's file as the store would hold it."""
    data = case.file.read_bytes()
    return StoredFile(hashlib.sha256(data).hexdigest(), len(data), case.file, case.config_json)


def read(case: Case, base: BaseModel) -> Adapter:
    """The case's file, read for `base`."""
    return read_adapter(stored(case), base)


def _inputs(base: BaseModel) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        told = base.encode_prompts(PROMPTS)
        shape = base.encode_pictures(torch.zeros(2, 3, *base.picture_size)).shape
    return torch.randn(shape, generator=generator), torch.tensor([0.25, 0.8]), told


def _difference(left: Conditioning, right: Conditioning) -> float:
    return max(
        float((left.tensors[name] - right.tensors[name]).abs().max()) for name in left.tensors
    )


# The cases: one function per family and format, which writes the file into a folder.

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
        "peft folder": _peft("flux", "transformer", lambda: files.lora(files.TRANSFORMER)),
        "LoHa, peft folder": _peft("flux", "transformer", _loha(files.TRANSFORMER)),
        "LoKr, peft folder": _peft("flux", "transformer", _lokr(files.TRANSFORMER)),
    },
}


def every_case() -> Iterator[tuple[str, str]]:
    """Family and format of every case."""
    return ((family, name) for family, cases in CASES.items() for name in cases)


def table(lines: list[Parity]) -> str:
    """The lines in Markdown."""
    head = (
        "| family | format | read as | layers | effect | error | text effect | text error | "
        "base rows | equal |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {line.family} | {line.format} | {line.recognised_as} | {line.layers} | "
        f"{line.effect:.2e} | {line.error:.1e} | {line.text_effect:.2e} | {line.text_error:.1e} | "
        f"{line.base_error:.0f} | {'yes' if line.holds else 'NO'} |"
        for line in lines
    ]
    return "\n".join(["# Parity with diffusers and peft", "", head, *rows])


def main() -> None:
    """Measures every case, prints the table, writes it to `results/`."""
    diffusers_logging.set_verbosity_error()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (family, name) in enumerate(every_case()):
            lines.append(measure(family, name, Path(folder) / str(index)))
    cases = [asdict(line) | {"equal": line.holds} for line in lines]
    write("parity", {"tolerance": TOLERANCE, "cases": cases}, table(lines))
    if not all(line.holds for line in lines):
        raise SystemExit("some cases are not equal")


if __name__ == "__main__":
    main()
