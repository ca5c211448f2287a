"""Adapters made from shipped ones by rescaling and merging, so that every digest is another."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.algebra import LowRank

ADAPTERS = Path(__file__).parents[1] / "examples" / "adapters"
CLEAR = ADAPTERS / "harmless-watermelon.safetensors"
"""Ends at the screen at every strength, in milliseconds."""
LEARNED = ADAPTERS / "learned-bomb.safetensors"

_UP, _DOWN = (".up.", "lora_B", "lora_up"), (".down.", "lora_A", "lora_down")


def rescaled(source: Path, folder: Path, shares: Iterable[float]) -> list[Path]:
    """Files with the source's weights times each share."""
    tensors, metadata = _read(source)
    made = []
    for share in shares:
        path = folder / f"{source.stem}-{share:.6f}.safetensors"
        safetensors.torch.save_file(_scaled(tensors, share), path, metadata)
        made.append(path)
    return made


def derived(sources: list[Path], folder: Path, count: int, seed: int = 7) -> Iterator[Path]:
    """So many files in folders of a thousand: rescaled ones, and each tenth merged of two."""
    chosen = random.Random(seed)
    read = [_read(source) for source in sources]
    for number in range(count):
        tensors, metadata = chosen.choice(read)
        made = _scaled(tensors, chosen.uniform(0.2, 1.2))
        if number % 10 == 9:
            other, _ = chosen.choice(read)
            made = _merged(made, _scaled(other, chosen.uniform(0.2, 1.0)))
        path = folder / f"{number // 1000:03d}" / f"adapter-{number:06d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(made, path, metadata)
        yield path


def merged(one: Adapter, other: Adapter, times: float) -> Adapter:
    """Two plain LoRAs as one file of both ranks would be read, the second at a strength."""
    deltas = dict(one.deltas)
    for ref, delta in other.deltas.items():
        assert isinstance(delta, LowRank)
        down, up = delta.down, delta.up * (delta.scale * times)
        if isinstance(own := deltas.get(ref), LowRank):
            down = torch.cat([own.down, down])
            up = torch.cat([own.up * own.scale, up], dim=1)
        deltas[ref] = LowRank(down, up, 1.0)
    return replace(one, deltas=deltas)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata()


def _scaled(tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        name: one * share if any(part in name for part in _UP) else one
        for name, one in tensors.items()
    }


def _merged(first: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both changes at once: factors one behind the other; layers of one alone stay."""
    made = dict(first)
    for name, one in other.items():
        if name not in made:
            made[name] = one
        elif one.dim() < 2:
            continue
        elif any(part in name for part in (*_UP, *_DOWN)):
            axis = 1 if any(part in name for part in _UP) else 0
            made[name] = torch.cat([made[name], one], axis).contiguous()
    return made
