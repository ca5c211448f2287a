"""Writes the table of docs/loaders.md: how each loader scales the same layouts, told by the rules.

.venv/bin/python -m scripts.loader_table            writes it
.venv/bin/python -m scripts.loader_table --check    exit code 1 where it is not as written
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.loader_parity.compare import no_noise
from loragate_server.adapter.algebra import LowRank
from loragate_server.intake.convert import convert
from loragate_server.intake.loader_rules.names import LOADERS
from loragate_server.models.apply import layer_shape
from testkit.tiny_models import tiny_base

DOCUMENT = Path(__file__).parents[1] / "docs" / "loaders.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.proj_out"
JOINT = "transformer_blocks.0.attn.to_q"
RANK = 4
QUERY_ALPHA, OTHER_ALPHA, TOLD_ALPHA = 2.0, 12.0, 40.0
WORDS = {
    1.0: "1",
    QUERY_ALPHA / RANK: "alpha / rank",
    OTHER_ALPHA / RANK: "most common alpha / rank",
    TOLD_ALPHA / RANK: "told alpha / rank",
}


@dataclass(frozen=True)
class Layout:
    """A row: tensors around one attention layer, and what is told of them beside."""

    title: str
    family: str
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)


def pair(
    family: str, layer: str, down: str, up: str, alpha: tuple[str, float] | None = None
) -> Any:
    """The tensors of one layer, by the whole names given."""
    base = tiny_base(family)
    weight = layer_shape(base.denoiser.get_submodule(layer)).weight
    ones = (1,) * (weight.dim() - 2)
    found = {
        down: torch.ones(RANK, *weight.shape[1:]),
        up: torch.ones(weight.shape[0], RANK, *ones),
    }
    return found | ({alpha[0]: torch.tensor(alpha[1])} if alpha else {})


def kohya(alphas: Mapping[str, float | None]) -> dict[str, Tensor]:
    """kohya's names on the UNet."""
    found: dict[str, Tensor] = {}
    for layer, alpha in alphas.items():
        stem = "lora_unet_" + layer.replace(".", "_")
        own = None if alpha is None else (f"{stem}.alpha", alpha)
        found |= pair("sd", layer, f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", own)
    return found


def dotted(family: str, ends: tuple[str, str], alpha: float | None = None) -> dict[str, Tensor]:
    """A denoiser's own names."""
    unet = family in ("sd", "sdxl")
    layer = QUERY if unet else JOINT
    stem = f"{'unet' if unet else 'transformer'}.{layer}"
    own = None if alpha is None else (f"{stem}.alpha", alpha)
    return pair(family, layer, stem + ends[0], stem + ends[1], own)  # type: ignore[no-any-return]


def processor(alpha: float | None) -> dict[str, Tensor]:
    """The names that diffusers wrote before peft."""
    stem = f"unet.{QUERY.removesuffix('.to_q')}.processor.to_q"
    own = None if alpha is None else (f"{stem}.alpha", alpha)
    return pair("sd", QUERY, f"{stem}_lora.down.weight", f"{stem}_lora.up.weight", own)  # type: ignore[no-any-return]


A_B, DOWN_UP = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")


def layouts() -> list[Layout]:
    """The rows, in order."""
    several = {QUERY: QUERY_ALPHA, OUT: OTHER_ALPHA, "conv_in": OTHER_ALPHA}
    header = {"unet.r": RANK, "unet.lora_alpha": TOLD_ALPHA, "unet.target_modules": [QUERY]}
    folder = {
        name.replace("unet.", "base_model.model."): t for name, t in dotted("sd", A_B).items()
    }
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": TOLD_ALPHA, "target_modules": ["to_q"]}
    flux = "lora_unet_single_blocks_0_linear2"
    fused = pair(
        "flux", "single_transformer_blocks.0.proj_out",
        f"{flux}.lora_down.weight", f"{flux}.lora_up.weight", (f"{flux}.alpha", QUERY_ALPHA),
    )  # fmt: skip
    return [
        Layout("UNet, kohya's names, one alpha for all layers", "sd", kohya({QUERY: QUERY_ALPHA})),
        Layout("UNet, kohya's names, alphas differ", "sd", kohya(several)),
        Layout("UNet, kohya's names, no alpha here but elsewhere", "sd",
               kohya({QUERY: None, OUT: OTHER_ALPHA})),
        Layout("UNet, kohya's names, no alphas", "sd", kohya({QUERY: None})),
        Layout("UNet, `processor` names", "sd", processor(None)),
        Layout("UNet, `processor` names and alphas", "sd", processor(QUERY_ALPHA)),
        Layout("UNet, `lora_A`, `lora_B`", "sd", dotted("sd", A_B)),
        Layout("UNet, `lora_A`, `lora_B` and alphas", "sd", dotted("sd", A_B, QUERY_ALPHA)),
        Layout("UNet, `lora_adapter_metadata` in the header", "sd", dotted("sd", A_B),
               {"metadata": header}),
        Layout("UNet, folder saved by peft", "sd", folder, {"config": config}),
        Layout("Flux, kohya's names and alphas", "flux", fused),
        Layout("Flux, `lora_down`, `lora_up` and alphas", "flux",
               dotted("flux", DOWN_UP, QUERY_ALPHA)),
        Layout("Flux, `lora_A`, `lora_B` and alphas", "flux", dotted("flux", A_B, QUERY_ALPHA)),
        Layout("Flux, `lora_alpha` in the header", "flux", dotted("flux", A_B),
               {"header": {"lora_alpha": f"{TOLD_ALPHA:g}"}}),
        Layout("Flux, `adapter_config.json` beside diffusers' names", "flux", dotted("flux", A_B),
               {"config": config}),
        Layout("SD3, `lora_A`, `lora_B` and alphas", "sd3", dotted("sd3", A_B, QUERY_ALPHA)),
    ]  # fmt: skip


def cells(layout: Layout) -> dict[str, str]:
    """Loader to what it does with the attention layer."""
    with no_noise():
        found = convert(layout.tensors, tiny_base(layout.family), **layout.options)
    told = dict.fromkeys(LOADERS, "not loaded")
    told |= dict.fromkeys(found.refused, "refused")
    for reading in found.readings:
        for ref, delta in reading.deltas.items():
            if ref.module in (QUERY, JOINT, "single_transformer_blocks.0.proj_out"):
                scale = delta.scale if isinstance(delta, LowRank) else math.nan
                word = WORDS.get(round(scale, 6), f"{scale:g}")
                for loader in (name for name in reading.loaders if name in told):
                    other = told[loader] if told[loader] in WORDS.values() else ""
                    told[loader] = f"{other} or {word}" if other else word
    return told


def table() -> str:
    """The whole table in Markdown."""
    lines = [
        f"| layout | {' | '.join(LOADERS)} |",
        "|---" * (1 + len(LOADERS)) + "|",
    ]
    for layout in layouts():
        row = cells(layout)
        lines.append(f"| {layout.title} | {' | '.join(row[name] for name in LOADERS)} |")
    return "\n".join(lines)


def main() -> int:
    """Writes the table, or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    check = parser.parse_args().check
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if check:
        return int(made != text)
    DOCUMENT.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
