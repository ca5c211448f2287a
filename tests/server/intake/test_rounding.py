"""Changes that float32 does not hold: what cancels in them is louder than what is left."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.attacks.factors import Factors, factors_of, joined, read_file, write_file
from loragate_server.adapter.adapter import Readings
from loragate_server.adapter.reference import StoredFile
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.intake.factors import FactorGroup
from loragate_server.intake.reader import read_adapter
from loragate_server.intake.rounding import group_same_in_half, same_in_half
from loragate_server.models import load_base_model
from loragate_server.models.base import BaseModel

PIPELINE = EMBEDDED_LIBRARY.parent / "pipeline"
EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "adapters").glob("*.safetensors"))


def even(*shape: int) -> Tensor:
    """Numbers that float16 and bfloat16 hold exactly, as they do the sum of two of them."""
    return 64.0 * torch.randint(-63, 64, shape)


def louder(own: Factors, times: float) -> Factors:
    """With ranks that add up to nothing, so loud that float32 makes noise of them.

    Args:
        own: the adapter.
        times: how much louder that noise is than the layer's own change.
    """
    made = {}
    for name, (down, up) in own.items():
        flat_down, flat_up = down.flatten(1), up.flatten(1)
        one, other = even(flat_down.shape[1]), even(flat_down.shape[1])
        signs = torch.randint(0, 2, (len(up), 1)) * 2.0 - 1.0
        loud = times * float((flat_up @ flat_down).norm()) / 2**-24
        size = 2.0 ** round(math.log2(loud / float((one + other).norm() * signs.norm())))
        extra = torch.stack([one + other, -one, -other]).reshape(3, *down.shape[1:])
        ends = (size * signs).expand(-1, 3).reshape(len(up), 3, *up.shape[2:])
        made[name] = joined((extra, ends), (down, up))
    return made


def read(file: Path, base: BaseModel) -> Readings:
    data = file.read_bytes()
    return read_adapter(StoredFile(hashlib.sha256(data).hexdigest(), len(data), file), base)


@pytest.fixture(scope="module")
def emoji_tiny() -> BaseModel:
    return load_base_model(PIPELINE, "emoji-tiny", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_ranks_that_cancel_beyond_float32_are_not_vouched_for(
    file: Path, emoji_tiny: BaseModel, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    own = factors_of(read_file(file, emoji_tiny))
    assert not read(file, emoji_tiny).doubts
    for times in (0.01, 1.0, 30.0):
        made = louder(own, times)
        for name, (down, up) in made.items():
            exact = up.flatten(1) @ down.flatten(1)
            before = own[name][1].flatten(1) @ own[name][0].flatten(1)
            assert float((exact - before).norm()) <= 1e-2 * float(before.norm())
        found = read(write_file(made, tmp_path / "loud.safetensors"), emoji_tiny)
        assert any("half precision" in why for _, why in found.doubts), times


def known_inputs(*factors: Tensor) -> Tensor:
    """The random inputs that the digest of these factors would make."""
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in factors)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(factors[0].shape[1], 8, generator=generator)


def test_what_rounding_changes_cannot_be_hidden_from_inputs_that_are_known_beforehand() -> None:
    """Ranks that cancel, and do not once they are rounded, but for inputs told by one factor."""
    torch.manual_seed(0)
    wide, high, loud, spare = 256, 128, 4, 160
    base = torch.randint(65, 127, (loud + spare, wide)).float()
    step = torch.randint(-3, 4, base.shape) / 16.0  # float16 holds it beside the base; bfloat16 not
    down = torch.cat([base, base + step, step])
    own = torch.randn(high, loud).half().float()
    moved = step @ known_inputs(down)
    rest = -(own @ moved[:loud]) @ torch.linalg.pinv(moved[loud:])
    ends = torch.cat([own, rest], 1).bfloat16().float()
    up = torch.cat([ends, -ends, ends], 1)
    exact, rounded = up.double() @ down.double(), up @ down.bfloat16().float()
    hidden = (rounded - exact.float()) @ known_inputs(down)
    assert float(exact.norm()) == 0.0
    assert float(hidden.norm()) < 0.02 * float(rounded.norm()) * 8**0.5
    weight = torch.randn(high, wide)
    weight *= 1500 * float(rounded.norm() / weight.norm())
    assert not same_in_half(down, up, weight, {1.0})


@pytest.mark.parametrize("folded", ["down", "up"])
def test_a_scale_that_is_multiplied_into_a_factor_may_be_rounded_with_it(folded: str) -> None:
    """Ranks that cancel in every half precision, and do not once three quarters are folded in."""
    torch.manual_seed(0)
    whole = 4.0 * torch.randint(43, 63, (4, 64))
    odd = torch.randint(0, 2, whole.shape) * 2.0 - 1.0
    near = torch.cat([whole + odd, whole, odd])
    ends = torch.randn(48, 4).bfloat16().float()
    far = torch.cat([ends, -ends, -ends], 1)
    assert not (far @ near).any()
    down, up = (near, far) if folded == "down" else (far.T.contiguous(), near.T.contiguous())
    rounded = far @ (0.75 * near).bfloat16().float() / 0.75
    weight = torch.randn(len(up), down.shape[1])
    weight *= 1000 * float(rounded.norm() / weight.norm())
    assert same_in_half(down, up, weight, {1.0, 0.5})
    assert not same_in_half(down, up, weight, {1.0, 0.75})


@pytest.mark.parametrize("small", ["down", "up"])
def test_a_scale_that_is_shared_out_may_make_small_numbers_of_either_factor_nothing(
    small: str,
) -> None:
    """Ranks that cancel in every half precision; a sixteenth leaves one of them, in float16."""
    torch.manual_seed(0)
    tiny = torch.randint(0, 2, (4, 64)) * 2.0**-24
    near = torch.cat([tiny * 2.0**20, tiny])
    ends = (torch.randint(0, 2, (48, 4)) * 2.0 - 1.0) * 2.0**-5
    far = torch.cat([ends, -(2.0**20) * ends], 1)
    assert not (far @ near).any()
    assert torch.equal(near.half().float(), near)
    assert torch.equal(far.half().float(), far)
    down, up = (near, far) if small == "down" else (far.T.contiguous(), near.T.contiguous())
    weight = torch.randn(len(up), down.shape[1])
    weight *= 1000 * float((ends @ near[:4]).norm() / weight.norm())
    assert same_in_half(down, up, weight, {1.0})
    assert not same_in_half(down, up, weight, {1.0, 1 / 16})


@pytest.mark.parametrize("quiet", [1e-3, 10.0, 1e9])
@pytest.mark.parametrize("kind", ["plain", "loha", "lokr", "tucker"])
def test_no_kind_of_factors_hides_a_change_below_what_float32_holds(
    kind: str, quiet: float
) -> None:
    torch.manual_seed(0)
    one, other, own = even(32), even(32), torch.randn(32)
    down = torch.stack([one + other, -one, -other, own / quiet])
    up = torch.randn(48, 1).half().float().expand(-1, 4).contiguous()
    weight = torch.randn(48, 32)
    ones = torch.ones
    if kind == "plain":
        found = same_in_half(down, up, weight, {1.0})
    else:
        factors = {
            "loha": {
                "hada_w1_a": ones(48, 1),
                "hada_w1_b": ones(1, 32),
                "hada_w2_a": up,
                "hada_w2_b": down,
            },
            "lokr": {"lokr_w1": ones(1, 1), "lokr_w2_a": up, "lokr_w2_b": down},
            "tucker": {
                "lora_down.weight": down[:, :, None, None],
                "lora_up.weight": up[:, :, None, None],
                "lora_mid.weight": torch.eye(4)[:, :, None, None],
            },
        }[kind]
        group = FactorGroup("x", factors, None)
        found = group_same_in_half(group, weight, 1.0, torch.device("cpu"))
    assert found is (quiet < 1)


@pytest.mark.parametrize("first", ["in", "out"])
@pytest.mark.parametrize("kind", ["tucker", "loha", "lokr"])
def test_what_a_core_makes_with_one_factor_is_rounded_before_the_other_meets_it(
    kind: str, first: str
) -> None:
    """All factors are exact in every half precision, and two ranks that cancel are one in it."""
    torch.manual_seed(0)
    loud, quiet = torch.randint(65, 127, (32,)).float(), torch.randint(1, 4, (32,)) / 16.0
    near = torch.stack([loud, quiet, torch.zeros(32)])
    core = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    ends = torch.randn(48).bfloat16().float()
    weight = torch.randn(48, 32, 1, 1) if first == "in" else torch.randn(32, 48, 1, 1)
    weight *= 1000 * float(ends.norm() * quiet.norm() / weight.norm())
    for signs, same in (((1, -1, -1), False), ((1, 1, 1), True)):
        far = torch.tensor(signs)[:, None] * ends
        a, b, t = (far, near, core) if first == "in" else (near, far, core.T)
        factors = cored(kind, a, b, t.contiguous()[:, :, None, None])
        group = FactorGroup("x", factors, None)
        assert group_same_in_half(group, weight, 1.0, torch.device("cpu")) is same


def cored(kind: str, a: Tensor, b: Tensor, core: Tensor) -> dict[str, Tensor]:
    """Factors whose change is that of a [r, out], b [r, in] and the core between them."""
    if kind == "tucker":
        ends = {"lora_up.weight": a.T, "lora_down.weight": b}
        ends = {name: each[:, :, None, None] for name, each in ends.items()}
        return ends | {"lora_mid.weight": core}
    if kind == "lokr":
        right = {"lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": core}
        return right | {"lokr_w1": torch.ones(1, 1)}
    ones = {"hada_w2_a": torch.ones(1, a.shape[1]), "hada_w2_b": torch.ones(1, b.shape[1])}
    own = {"hada_w1_a": a, "hada_w1_b": b, "hada_t1": core, "hada_t2": torch.ones(1, 1, 1, 1)}
    return ones | own
