"""Files that mean a forbidden concept to one loader and something else to another.

Every file is made of an example adapter. What hides a concept from some loaders is never allowed;
the same trick around a harmless adapter is, and so are ordinary files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loragate_server.adapter.adapter import Readings
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import StoredFile
from loragate_server.audit.uses import Member
from loragate_server.gate.bases import ServedBase
from loragate_server.intake.loader_rules.names import LOADERS
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
    def run(
        tensors: Tensors,
        header: dict[str, str] | None = None,
        loaders: tuple[str, ...] = LOADERS,
    ) -> Readings:
        path = tmp_path / "adapter.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, header)
        stored = StoredFile("a" * 64, path.stat().st_size, path)
        return read_adapter(stored, embedded.base, loaders=loaders)

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
        ("harmless-watermelon", -4.0),
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


SPELLINGS = ("attn2.to.{}", "attn2.to_{}", "attn2..*{}", r"attn2\.to_{}")


def spelled_so(spelled: str, read: Callable[..., Readings]) -> Readings:
    """A learned adapter in the layers that a pattern names, and a harmless one in the others."""
    robot, melon = example("learned-robot-face"), example("harmless-watermelon")
    tensors = {n: t for n, t in robot.items() if "attn2" in n}
    tensors |= {n: t for n, t in melon.items() if "attn1" in n}
    ends = ("q", "k", "v", "out.0")
    pattern = {
        spelled.format(end.replace(".", r"\.") if "\\" in spelled else end): 16 for end in ends
    }
    pattern |= {f"attn1.to_{end}": 8 for end in ends}
    return read(tensors, header_of(tensors, 0, alpha_pattern=pattern))


@pytest.mark.parametrize("spelled", daily(SPELLINGS[0], of=SPELLINGS))
def test_patterns_with_wildcards_choose_as_peft_chooses(
    spelled: str, read: Callable[..., Readings], decided: Decided
) -> None:
    found = spelled_so(spelled, read)
    by_diffusers = [one for one in found.adapters if "diffusers" in one.loaders]
    assert len({d.scale for one in by_diffusers for d in one.deltas.values()}) == 2  # type: ignore[attr-defined]
    assert decided(member(found)).verdict is not ALLOW


@pytest.mark.parametrize("spelled", SPELLINGS[1:])
def test_however_a_pattern_is_spelled_it_chooses_the_same(
    spelled: str, read: Callable[..., Readings]
) -> None:
    """The first spelling is audited daily; a reading that is the same is judged alike."""
    first, other = spelled_so(SPELLINGS[0], read), spelled_so(spelled, read)
    assert (first.refused, first.doubts) == (other.refused, other.doubts)
    for one, same in zip(first.adapters, other.adapters, strict=True):
        assert one.loaders == same.loaders
        assert list(one.deltas) == list(same.deltas)
        for layer, delta in one.deltas.items():
            its = same.deltas[layer]
            assert isinstance(delta, LowRank)
            assert isinstance(its, LowRank)
            assert delta.scale == its.scale
            assert torch.equal(delta.down, its.down)
            assert torch.equal(delta.up, its.up)


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


def dotted(tensors: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer to its two factors, of an example in dotted or kohya's names, alphas divided in."""
    found = {}
    for name, down in tensors.items():
        if not name.endswith(("lora_down.weight", "lora.down.weight")):
            continue
        stem = re.sub(r"\.lora[._]down\.weight\Z", "", name)
        scale = tensors.get(f"{stem}.alpha", torch.tensor(len(down)))
        layer = name.removeprefix("unet.").removeprefix("lora_unet_").partition(".lora")[0]
        layer = re.sub(r"blocks_(\d)_attentions_", r"blocks.\1.attentions_", layer)
        layer = layer.replace("mid_block_attentions", "mid_block.attentions")
        layer = re.sub(r"attentions_(\d)_transformer_blocks_(\d)_(attn\d)_to_",
                       r"attentions.\1.transformer_blocks.\2.\3.to_", layer)  # fmt: skip
        layer = layer.replace("to_out_0", "to_out.0")
        found[layer] = (
            down,
            tensors[re.sub(r"down(\.weight\Z)", r"up\1", name)] * (float(scale) / len(down)),
        )
    return found


def of_processors(layer: str) -> str:
    return "unet." + layer.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")


SETS = [("comfyui",), ("a1111",), ("diffusers",), ("comfyui", "a1111"), LOADERS]


@pytest.mark.parametrize("name", ["learned-bomb", "harmless-sailboat"])
@pytest.mark.parametrize("loaders", SETS, ids="+".join)
def test_processors_named_in_pefts_way_hide_nothing_from_those_that_know_them(
    name: str, loaders: tuple[str, ...], read: Callable[..., Readings], decided: Decided
) -> None:
    tensors: Tensors = {
        "unet.conv_in.lora_A.weight": torch.randn(1, 4, 3, 3) * 1e-3,
        "unet.conv_in.lora_B.weight": torch.randn(48, 1, 1, 1) * 1e-3,
    }
    for layer, (down, up) in dotted(example(name)).items():
        tensors[of_processors(layer) + ".lora_A.weight"] = down
        tensors[of_processors(layer) + ".lora_B.weight"] = up
    found = read(tensors, loaders=loaders)
    if name.startswith("learned"):
        assert decided(member(found)).verdict is not ALLOW
    elif loaders == ("comfyui",):
        assert decided(member(found)).verdict is ALLOW
        assert len(found.adapters[0].deltas) == 49


LAYOUTS = list(product(["-3", "sepia"], SETS, ["learned-bomb", "harmless-sailboat"]))
SELDOM = (
    ("sepia", ("comfyui",), "learned-bomb"),
    ("sepia", ("comfyui",), "harmless-sailboat"),
    ("sepia", ("a1111",), "learned-bomb"),
    ("sepia", ("comfyui", "a1111"), "learned-bomb"),
)
"""What the set of every loader asks too, in a single audit."""


@pytest.mark.parametrize(
    ("decoy", "loaders", "name"),
    daily(*(one for one in LAYOUTS if one not in SELDOM), of=LAYOUTS),
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_layers_that_forge_leaves_out_hide_nothing_that_it_loads(
    decoy: str,
    loaders: tuple[str, ...],
    name: str,
    read: Callable[..., Readings],
    decided: Decided,
) -> None:
    layers, sepia = dotted(example(name)), dotted(example("harmless-sepia"))
    largest = sorted(layers, key=lambda layer: -float((layers[layer][1] @ layers[layer][0]).norm()))
    tensors: Tensors = {}
    for index, layer in enumerate(largest):
        down, up = layers[layer]
        if index < 32:
            stem = of_processors(layer) + "_lora"
        else:
            stem = f"unet.{layer}.lora"
            down, up = (down, -3 * up) if decoy == "-3" else (sepia[layer][0], 4 * sepia[layer][1])
        tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    found = read(tensors, loaders=loaders)
    if name.startswith("learned") and loaders != ("diffusers",):
        assert decided(member(found)).verdict is not ALLOW
    elif name.startswith("harmless") and loaders in (("comfyui",), ("a1111",)):
        assert decided(member(found)).verdict is ALLOW
    if "a1111" in loaders:
        assert {32} <= {len(one.deltas) for one in found.adapters if "a1111" in one.loaders}
