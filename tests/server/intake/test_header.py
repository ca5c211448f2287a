"""Headers: which types an alpha may have, and what reading one may cost."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from loragate_server.adapter.reference import AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.fetch import Intake
from loragate_server.intake.header import is_alpha_name, outline_of, read_header
from loragate_server.intake.weights import read_weights
from loragate_server.progress import Leash

LIMITS = IntakeSection()
WEIGHTS = np.ones((2, 3), np.float32)
INTEGERS = (
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
ALPHAS = (
    "lora_unet_down_blocks_0.alpha",
    "transformer.blocks.0.attn.to_q.lora_alpha",
    "unet.down.network_alpha",
    "alpha",
)


def fetch(intake: Intake, data: bytes) -> bytes:
    return intake.fetch(AdapterReference(inline_bytes=data), Leash()).path.read_bytes()


def refusal(data: bytes, limits: IntakeSection = LIMITS) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        read_header(io.BytesIO(data), len(data), limits)
    return caught.value


@pytest.mark.parametrize("name", ALPHAS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_an_alpha_may_be_any_integer(
    intake: Intake, name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    alpha = torch.full(shape, 16).to(dtype)
    data = save_torch({"a.lora_down.weight": torch.from_numpy(WEIGHTS), name: alpha})
    assert fetch(intake, data) == data
    assert load_torch(data)[name].float().flatten().tolist() == [16.0]


@given(
    name=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1).map(
        lambda text: f"layer.{text}"
    ),
    dtype=st.sampled_from(INTEGERS),
    shape=st.sampled_from([(), (1,), (2,), (1, 3)]),
)
def test_integers_are_taken_for_single_alphas_and_for_nothing_else(
    name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    data = save_torch({name: torch.ones(shape).to(dtype)})
    if is_alpha_name(name) and int(np.prod(shape)) == 1:
        assert read_header(io.BytesIO(data), len(data), LIMITS).tensors
    else:
        assert refusal(data).reason is ErrorReason.DTYPE_UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.lora_down.weight", np.ones((2, 3), np.int32)),
        ("a.lora_down.weight", np.ones((1,), np.int64)),
        ("a.alpha", np.ones((2,), np.int64)),
        ("a.alpha", np.ones((), np.bool_)),
        ("a.alpha.weight", np.ones((), np.int64)),
        ("a.alphas", np.ones((), np.int64)),
    ],
)
def test_other_integers_are_refused_as_before(name: str, value: np.ndarray) -> None:
    assert refusal(save({name: value})).reason is ErrorReason.DTYPE_UNSUPPORTED


@pytest.mark.parametrize(
    "dtype", ["F8_E4M3FNUZ", "F8_E8M0", "BOOL", "C64", "", None, 3, ["I64"], {}]
)
def test_an_alpha_of_another_type_is_refused(dtype: object) -> None:
    entry = {"a.alpha": {"dtype": dtype, "shape": [1], "data_offsets": [0, 1]}}
    header = json.dumps(entry).encode()
    assert refusal(struct.pack("<Q", len(header)) + header + b"\0").reason is (
        ErrorReason.DTYPE_UNSUPPORTED
    )


def test_a_nan_after_an_integer_is_found(intake: Intake) -> None:
    parts = {"a.alpha": np.array(16), "b.alpha": np.array(3, np.int8)}
    fetch(intake, save({**parts, "w": WEIGHTS}))
    bad = save({**parts, "w": np.array([1, np.nan], np.float32)})
    with pytest.raises(NoDecisionError) as caught:
        fetch(intake, bad)
    assert caught.value.reason is ErrorReason.WEIGHTS_NOT_FINITE


@pytest.mark.parametrize("left", [0, 1, 3, 4, 23])
def test_a_file_that_shrinks_under_the_reader_is_cut_short_and_no_endless_loop(left: int) -> None:
    data = save({"w": WEIGHTS})
    header = read_header(io.BytesIO(data), len(data), LIMITS)
    shorter = io.BytesIO(data[: header.data_start + left])
    with pytest.raises(NoDecisionError) as caught:
        read_weights(shorter, header)
    assert caught.value.reason is ErrorReason.FILE_TRUNCATED


def test_the_outline_of_a_whole_file_is_what_the_header_says() -> None:
    data = save({"w": WEIGHTS}, metadata={"format": "pt", "note": "a b"})
    header = read_header(io.BytesIO(data), len(data), LIMITS)
    assert dict(outline_of(data)[0]) == dict(header.metadata) == {"format": "pt", "note": "a b"}
    assert outline_of(save({"w": WEIGHTS})) == ({}, ("w",))


def filled(unit: str, start: str, end: str) -> bytes:
    """A header of nearly the largest size that repeats one short value."""
    room = LIMITS.max_header_bytes - len(start) - len(end)
    count = room // len(unit.encode())
    header = (start + (unit * count)[:-1] + end).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


IN_A_SHAPE = ('{"w":{"dtype":"F32","data_offsets":[0,4],"shape":[', "]}}")
IN_A_TENSOR = ('{"w":[', "]}")
IN_THE_METADATA = (
    '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"a":"',
    '"}}',
)


@pytest.mark.parametrize(
    ("unit", "around"),
    [
        pytest.param("[],", IN_A_SHAPE, id="lists"),
        pytest.param("{},", IN_A_SHAPE, id="objects"),
        pytest.param('{"":0},', IN_A_SHAPE, id="full objects"),
        pytest.param("999,", IN_A_SHAPE, id="numbers"),
        pytest.param("1", IN_A_SHAPE, id="one number"),
        pytest.param("1e9,", IN_A_SHAPE, id="floats"),
        pytest.param('"ab",', IN_A_SHAPE, id="texts"),
        pytest.param("[[[[[[]]]]]],", IN_A_TENSOR, id="deep lists"),
        pytest.param("x", IN_THE_METADATA, id="long text"),
        pytest.param("\N{OK HAND SIGN}" + "x" * 20, IN_THE_METADATA, id="wide text"),
    ],
)
def test_a_header_is_refused_before_it_costs_many_times_its_size(
    unit: str, around: tuple[str, str]
) -> None:
    data = filled(unit, *around)
    tracemalloc.start()
    try:
        error = refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.reason in {ErrorReason.HEADER_INVALID, ErrorReason.HEADER_LIMIT_EXCEEDED}
    assert len(str(error)) < 2000
    assert peak < 12 * LIMITS.max_header_bytes


@pytest.mark.parametrize(
    ("field", "number"),
    [("data_offsets", "[-0, 4]"), ("shape", "[-0]"), ("shape", "[1, -0]"), ("shape", "[-00]")],
)
def test_a_zero_with_a_sign_is_no_size(field: str, number: str) -> None:
    entry = {"dtype": '"F32"', "shape": "[1]", "data_offsets": "[0, 4]"} | {field: number}
    text = '{"a":{' + ",".join(f'"{key}":{value}' for key, value in entry.items()) + "}}"
    data = struct.pack("<Q", len(text)) + text.encode() + b"\0" * 4
    with pytest.raises(SafetensorError):
        load_torch(data)
    assert refusal(data).reason is ErrorReason.HEADER_INVALID
