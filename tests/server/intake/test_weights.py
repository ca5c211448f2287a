"""The digest of the weights: the same for files that differ in their metadata alone."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake import store as stores
from loragate_server.intake import weights as weighing
from loragate_server.intake.fetch import Intake
from loragate_server.progress import Leash

DOWN = np.arange(6, dtype=np.float32).reshape(2, 3)
UP = np.ones((4, 2), np.float16)
STATE = {"a.lora_down.weight": DOWN, "a.lora_up.weight": UP, "a.alpha": np.array(4, np.int64)}


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(IntakeSection(), tmp_path / "store")


def taken(intake: Intake, data: bytes) -> StoredFile:
    return intake.fetch(AdapterReference(inline_bytes=data), Leash())


def in_this_order(*names: str) -> bytes:
    """A file whose tensors lie in this order; the library has an order of its own."""
    header: dict[str, Any] = {}
    data = b""
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64"}
    for name in names:
        value = STATE[name]
        begin, data = len(data), data + value.tobytes()
        offsets = [begin, len(data)]
        entry = {"dtype": kinds[str(value.dtype)], "shape": list(value.shape)}
        header[name] = {**entry, "data_offsets": offsets}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_it_is_what_its_description_says(intake: Intake) -> None:
    lines = [
        ["a.alpha", "I64", [], hashlib.sha256(struct.pack("<q", 4)).hexdigest()],
        ["a.lora_down.weight", "F32", [2, 3], hashlib.sha256(DOWN.tobytes()).hexdigest()],
        ["a.lora_up.weight", "F16", [4, 2], hashlib.sha256(UP.tobytes()).hexdigest()],
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    assert taken(intake, save(STATE)).weights_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_neither_metadata_nor_the_order_of_tensors_changes_it(intake: Intake) -> None:
    plain = taken(intake, save(STATE))
    others = [
        save(STATE, metadata={"ss_network_alpha": "8"}),
        save(STATE, metadata={"note": "a" * 5000}),
        in_this_order(*STATE),
        in_this_order(*reversed(STATE)),
    ]
    for other in others:
        found = taken(intake, other)
        assert found.sha256 != plain.sha256
        assert found.weights_sha256 == plain.weights_sha256


@pytest.mark.parametrize(
    "changed",
    [
        {"a.lora_up.weight": UP * 2},
        {"a.lora_up.weight": UP.astype(np.float32)},
        {"a.lora_up.weight": UP.reshape(2, 4)},
        {"a.alpha": np.array(5, np.int64)},
        {"b.alpha": np.array(4, np.int64)},
    ],
)
def test_names_types_shapes_and_bytes_change_it(intake: Intake, changed: dict[str, Any]) -> None:
    plain = taken(intake, save(STATE))
    assert taken(intake, save({**STATE, **changed})).weights_sha256 != plain.weights_sha256


def test_it_needs_no_reading_of_its_own(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(stored: StoredFile) -> bytes:
        raise AssertionError(f"{stored.sha256} was read again")

    monkeypatch.setattr(weighing, "read_stored", never)
    first = taken(intake, save(STATE))
    assert first.weights_sha256
    assert taken(intake, save(STATE)) == first
    by_digest = intake.fetch(AdapterReference(stored_sha256=first.sha256), Leash())
    assert by_digest.weights_sha256 == first.weights_sha256


def test_a_file_that_another_process_took_in_is_read_once(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = taken(intake, save(STATE))
    reads = []

    def read(stored: StoredFile) -> bytes:
        reads.append(stored.sha256)
        return stores.read_stored(stored)

    monkeypatch.setattr(weighing, "read_stored", read)
    later = Intake(IntakeSection(), tmp_path / "store")
    for _ in range(2):
        found = later.fetch(AdapterReference(stored_sha256=first.sha256), Leash())
        assert found.weights_sha256 == first.weights_sha256
    assert reads == [first.sha256]


def test_of_a_file_that_was_changed_in_the_store_there_is_none(intake: Intake) -> None:
    stored = taken(intake, save(STATE))
    stored.path.chmod(0o644)
    stored.path.write_bytes(save({**STATE, "a.lora_up.weight": UP * 2}))
    with pytest.raises(NoDecisionError) as caught:
        weighing.KnownWeights(IntakeSection()).of(stored)
    assert caught.value.reason is ErrorReason.ADAPTER_NOT_STORED


def test_what_was_forgotten_is_read_again(intake: Intake) -> None:
    files = [taken(intake, save({"w": DOWN + number})) for number in range(3)]
    known = weighing.KnownWeights(IntakeSection(), remembered=1)
    for _ in range(2):
        for file in files:
            assert known.of(file) == file.weights_sha256


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2")]
)
def test_of_all_8_bit_floats_those_that_are_not_finite_are_refused(
    intake: Intake, dtype: torch.dtype, name: str
) -> None:
    every = torch.arange(256, dtype=torch.uint8)
    finite = every.view(dtype).float().isfinite()
    entry = {"dtype": name, "shape": [1], "data_offsets": [0, 1]}
    text = json.dumps({"a.lora_down.weight": entry}).encode()
    for value, usable in zip(every.tolist(), finite.tolist(), strict=True):
        data = struct.pack("<Q", len(text)) + text + bytes([value])
        if usable:
            assert taken(intake, data).weights_sha256
        else:
            with pytest.raises(NoDecisionError) as caught:
                taken(intake, data)
            assert caught.value.reason is ErrorReason.WEIGHTS_NOT_FINITE
