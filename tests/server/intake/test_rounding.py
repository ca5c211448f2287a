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
        found = same_in_half(down, up, weight, 1.0)
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
