"""Files that mean a forbidden concept to one loader and something else to another.

Every file is made of an example adapter. What hides a concept from some loaders is never allowed;
the same trick around a harmless adapter is, and so are ordinary files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loragate_server.adapter.adapter import Readings
from loragate_server.adapter.reference import StoredFile
from loragate_server.audit.uses import Member
from loragate_server.gate.bases import ServedBase
from loragate_server.intake.reader import read_adapter
from loragate_server.policy.decision import Decision, VerdictKind
from testkit.lanes import daily

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
ALLOW = VerdictKind.ALLOW

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd

Tensors = dict[str, Tensor]
Decided = Callable[..., Decision]


@pytest.fixture
def read(embedded: ServedBase, tmp_path: Path) -> Callable[..., Readings]:
    def run(tensors: Tensors, header: dict[str, str] | None = None) -> Readings:
        path = tmp_path / "adapter.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, header)
        return read_adapter(StoredFile("a" * 64, path.stat().st_size, path), embedded.base)

    return run


def member(found: Readings) -> Member:
    return Member(found.adapters, refused=found.refused, doubts=found.doubts)


def example(name: str) -> Tensors:
    tensors = load_file(ADAPTERS / f"{name}.safetensors")
    return {key: t.float() if "alpha" in key else t for key, t in tensors.items()}


def as_processor(tensors: Tensors) -> Tensors:
    """The names that diffusers wrote before peft."""
    return {
        name.replace(".to_out.0.lora.", ".to_out.lora.")
        .replace(".to_", ".processor.to_")
        .replace(".lora.", "_lora."): t
        for name, t in tensors.items()
    }


def as_kohya(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, t in tensors.items():
        layer, _, part = name.removeprefix("unet.").partition(".lora.")
        stem = "lora_unet_" + layer.replace(".", "_")
        found[f"{stem}.lora_{part}"] = t
        if part.startswith("down"):
            found[f"{stem}.alpha"] = torch.tensor(float(len(t)))
    return found


def negated(tensors: Tensors) -> Tensors:
    return {name: -t if "down.weight" in name else t for name, t in tensors.items()}


def with_distinct_alphas_and_silent_decoys(tensors: Tensors, decoy: float) -> Tensors:
    """What divides per layer sees the adapter; the most common alpha is the decoys'."""
    found = dict(tensors)
    for index, name in enumerate(sorted(n for n in found if n.endswith(".alpha"))):
        rank = float(len(found[name.replace(".alpha", ".lora_down.weight")]))
        found[name] = torch.tensor(rank + 0.01 * index / 48)
    for conv in ("down_blocks_0_resnets_0_conv1", "down_blocks_0_resnets_0_conv2"):
        stem = f"lora_unet_{conv}"
        found[f"{stem}.lora_down.weight"] = torch.zeros(4, 48, 3, 3)
        found[f"{stem}.lora_up.weight"] = torch.zeros(48, 4, 1, 1)
        found[f"{stem}.alpha"] = torch.tensor(decoy)
    return found


def with_alphas(tensors: Tensors, factor: float) -> Tensors:
    """An alpha of so many ranks beside every processor."""
    found = dict(tensors)
    for name, t in tensors.items():
        if name.endswith("_lora.down.weight"):
            stem = name.removesuffix("_lora.down.weight")
            found[f"{stem}.alpha"] = torch.tensor(factor * len(t))
    return found


def header_of(tensors: Tensors, alpha: float, **more: object) -> dict[str, str]:
    layers = sorted(
        name.removeprefix("unet.").partition(".lora.")[0]
        for name in tensors
        if "down.weight" in name
    )
    rank = len(next(t for name, t in tensors.items() if "down.weight" in name))
    fields = {"r": rank, "lora_alpha": alpha, "target_modules": layers, **more}
    return {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in fields.items()})}


LEARNED = ("learned-jack-o-lantern", "learned-father-christmas")
HARMLESS = ("harmless-watermelon", "harmless-sepia")


@pytest.mark.parametrize(
    ("name", "decoy"),
    daily(
        ("learned-bomb", -4.0),
        ("learned-bomb", 0.0),
        ("harmless-sailboat", -4.0),
        of=product(["learned-bomb", *LEARNED, "harmless-sailboat", *HARMLESS], [-4.0, 0.0]),
    ),
)
def test_the_most_common_alpha_hides_nothing(
    name: str, decoy: float, read: Callable[..., Readings], decided: Decided
) -> None:
    tensors = example(name)
    kohya = tensors if any(n.endswith(".alpha") for n in tensors) else as_kohya(tensors)
    found = read(with_distinct_alphas_and_silent_decoys(kohya, decoy))
    assert {"diffusers", "comfyui"} <= {loader for one in found.adapters for loader in one.loaders}
    assert len(found.adapters) > 1
    verdict = decided(member(found)).verdict
    assert (verdict is ALLOW) == name.startswith("harmless")


@pytest.mark.parametrize("name", daily(LEARNED[0], HARMLESS[0], of=[*LEARNED, *HARMLESS]))
def test_a_negative_alpha_beside_a_processor_hides_nothing(
    name: str, read: Callable[..., Readings], decided: Decided
) -> None:
    tensors = with_alphas(as_processor(negated(example(name))), -1.0)
    assert (decided(member(read(tensors))).verdict is ALLOW) == name.startswith("harmless")


@pytest.mark.parametrize(
    ("name", "alpha"),
    daily(
        (LEARNED[0], -4),
        (LEARNED[-1], 0),
        (HARMLESS[0], -4),
        of=product([*LEARNED, *HARMLESS], [-4, 0]),
    ),
)
def test_an_alpha_in_the_header_hides_nothing(
    name: str, alpha: int, read: Callable[..., Readings], decided: Decided
) -> None:
    tensors = example(name)
    found = read(tensors, header_of(tensors, alpha))
    assert (decided(member(found)).verdict is ALLOW) == name.startswith("harmless")


@pytest.mark.parametrize(
    "spelled",
    daily(
        "attn2.to.{}",
        r"attn2\.to_{}",
        of=["attn2.to.{}", "attn2.to_{}", "attn2..*{}", r"attn2\.to_{}"],
    ),
)
def test_patterns_with_wildcards_choose_as_peft_chooses(
    spelled: str, read: Callable[..., Readings], decided: Decided
) -> None:
    robot, melon = example("learned-robot-face"), example("harmless-watermelon")
    tensors = {n: t for n, t in robot.items() if "attn2" in n}
    tensors |= {n: t for n, t in melon.items() if "attn1" in n}
    ends = ("q", "k", "v", "out.0")
    pattern = {
        spelled.format(end.replace(".", r"\.") if "\\" in spelled else end): 16 for end in ends
    }
    pattern |= {f"attn1.to_{end}": 8 for end in ends}
    found = read(tensors, header_of(tensors, 0, alpha_pattern=pattern))
    by_diffusers = [one for one in found.adapters if "diffusers" in one.loaders]
    assert len({d.scale for one in by_diffusers for d in one.deltas.values()}) == 2  # type: ignore[attr-defined]
    assert decided(member(found)).verdict is not ALLOW


@pytest.mark.parametrize(
    "name",
    daily(
        "learned-bomb",
        HARMLESS[0],
        of=["learned-bomb", *LEARNED, "harmless-sailboat", *HARMLESS],
    ),
)
def test_resized_files_are_judged_by_their_own_ranks(
    name: str, read: Callable[..., Readings], decided: Decided
) -> None:
    """Rank per layer as large as it needs, alpha half of it: as resizing scripts write it."""
    tensors = example(name)
    kohya = tensors if any(n.endswith(".alpha") for n in tensors) else as_kohya(tensors)
    resized: Tensors = {}
    for index, key in enumerate(sorted(n for n in kohya if n.endswith(".alpha"))):
        stem = key.removesuffix(".alpha")
        down = kohya[f"{stem}.lora_down.weight"].float()
        up = kohya[f"{stem}.lora_up.weight"].float()
        scale = float(kohya[key]) / len(down)
        u, s, v = torch.linalg.svd(scale * up @ down, full_matrices=False)
        rank = min(len(down), 2 + index % 7)
        resized[f"{stem}.lora_down.weight"] = 2 * v[:rank]
        resized[f"{stem}.lora_up.weight"] = u[:, :rank] * s[:rank]
        resized[key] = torch.tensor(rank / 2)
    assert (decided(member(read(resized))).verdict is ALLOW) == name.startswith("harmless")


@pytest.mark.parametrize("name", ["learned-bomb", "harmless-sailboat"])
def test_an_alpha_that_is_a_whole_number_changes_nothing(
    name: str, read: Callable[..., Readings], decided: Decided
) -> None:
    tensors = {key: t.long() if key.endswith(".alpha") else t for key, t in example(name).items()}
    found = read(tensors)
    assert len(found.adapters) == 1
    assert (decided(member(found)).verdict is ALLOW) == name.startswith("harmless")
