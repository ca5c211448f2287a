"""What intake takes in and what it refuses, on real files."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from loragate_server.adapter.reference import AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.fetch import Intake
from loragate_server.intake.header import read_header
from loragate_server.progress import Leash

GOOD = save(
    {
        "lora_unet_a.lora_down.weight": np.ones((2, 3), np.float16),
        "lora_unet_a.lora_up.weight": np.arange(8, dtype=np.float32).reshape(4, 2),
    }
)


def raw(header: str | bytes, data: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + data


def one(name: str = "w", **changes: Any) -> str:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes
    return json.dumps({name: entry})


W = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
V = '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    root = tmp_path / "root"
    root.mkdir()
    return Intake(IntakeSection(roots=(root,)), tmp_path / "store")


def stored(intake: Intake) -> list[Path]:
    return [path for path in intake.store_dir.rglob("*") if path.is_file()]


def refusal(intake: Intake, ref: AdapterReference) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        intake.fetch(ref, Leash())
    assert stored(intake) == []
    assert caught.value.remedy
    return caught.value


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"))
    return stream.getvalue()


def zip_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ErrorReason.FILE_EMPTY),
        (b"abc", ErrorReason.FILE_TRUNCATED),
        (GOOD[:-1], ErrorReason.FILE_TRUNCATED),
        (GOOD[:40], ErrorReason.FILE_TRUNCATED),
        (pickle.dumps({"lora": [1.0]}, protocol=2), ErrorReason.PICKLE_REFUSED),
        (pickle.dumps({"lora": [1.0] * 500}, protocol=5), ErrorReason.PICKLE_REFUSED),
        (zip_bytes(), ErrorReason.PICKLE_REFUSED),
        (tar_bytes(), ErrorReason.PICKLE_REFUSED),
        (gzip.compress(GOOD), ErrorReason.PICKLE_REFUSED),
        (b"GGUF" + bytes(600), ErrorReason.NOT_SAFETENSORS),
        (b"<!doctype html><title>login</title>", ErrorReason.NOT_SAFETENSORS),
        (raw('{"w":%s,"w":%s}' % (W, V), bytes(8)), ErrorReason.DUPLICATE_NAME),
        (raw('{"w":%s,"\\u0077":%s}' % (W, V), bytes(8)), ErrorReason.DUPLICATE_NAME),
        (
            raw('{"__metadata__":{"a":"1","a":"2"},"w":%s}' % W, bytes(4)),
            ErrorReason.DUPLICATE_NAME,
        ),
        (raw(one(note=1), bytes(4)), ErrorReason.HEADER_INVALID),
        (raw(one(shape=[0, 9999999999], data_offsets=[0, 0])), ErrorReason.HEADER_INVALID),
        (raw(one("w\0"), bytes(4)), ErrorReason.HEADER_INVALID),
        (raw("  " + one(), bytes(4)), ErrorReason.NOT_SAFETENSORS),
        (raw(one() + "\n", bytes(4)), ErrorReason.HEADER_INVALID),
        (raw(one(shape=[1.0]), bytes(4)), ErrorReason.HEADER_INVALID),
        (raw(one(shape=[True]), bytes(4)), ErrorReason.HEADER_INVALID),
        (raw('{"w\\ud800":%s}' % W, bytes(4)), ErrorReason.HEADER_INVALID),
        (raw("[" * 5000, bytes(4)), ErrorReason.NOT_SAFETENSORS),
        (raw('{"a":' * 5000, bytes(4)), ErrorReason.HEADER_INVALID),
        (raw("{}"), ErrorReason.HEADER_INVALID),
        (raw('{"__metadata__":{"a":1},"w":%s}' % W, bytes(4)), ErrorReason.HEADER_INVALID),
        (raw('{"a":%s,"b":%s}' % (W, W), bytes(4)), ErrorReason.OFFSETS_INVALID),
        (raw(one(data_offsets=[4, 8]), bytes(8)), ErrorReason.OFFSETS_INVALID),
        (raw(one(), bytes(9)), ErrorReason.OFFSETS_INVALID),
        (raw(one(shape=[2**40, 2**40]), bytes(4)), ErrorReason.OFFSETS_INVALID),
        (raw(one(dtype="I32"), bytes(4)), ErrorReason.DTYPE_UNSUPPORTED),
        (raw(one("x" * 600), bytes(4)), ErrorReason.HEADER_LIMIT_EXCEEDED),
        (raw(one() + " " * (9 * 2**20), bytes(4)), ErrorReason.HEADER_LIMIT_EXCEEDED),
        (save({"w": np.array([1.0, np.nan], np.float16)}), ErrorReason.WEIGHTS_NOT_FINITE),
        (save({"w": np.array([np.inf], np.float64)}), ErrorReason.WEIGHTS_NOT_FINITE),
        (raw(one(dtype="BF16", data_offsets=[0, 2]), b"\x80\x7f"), ErrorReason.WEIGHTS_NOT_FINITE),
        (raw(one(dtype="F8_E5M2", data_offsets=[0, 1]), b"\x7c"), ErrorReason.WEIGHTS_NOT_FINITE),
        (raw(one(dtype="F8_E5M2", data_offsets=[0, 1]), b"\xfd"), ErrorReason.WEIGHTS_NOT_FINITE),
        (raw(one(dtype="F8_E4M3", data_offsets=[0, 1]), b"\xff"), ErrorReason.WEIGHTS_NOT_FINITE),
    ],
)
def test_a_bad_file_is_refused_with_its_own_reason_and_leaves_nothing_behind(
    intake: Intake, data: bytes, reason: ErrorReason
) -> None:
    assert refusal(intake, AdapterReference(inline_bytes=data)).reason is reason


def test_a_good_file_is_stored_once_under_its_digest(intake: Intake) -> None:
    first = intake.fetch(AdapterReference(inline_bytes=GOOD), Leash())
    second = intake.fetch(AdapterReference(inline_bytes=GOOD), Leash())
    assert first == second
    assert first.path.read_bytes() == GOOD
    assert stored(intake) == [first.path]


def test_a_path_inside_a_root_is_read_and_one_outside_or_through_a_link_is_not(
    intake: Intake, tmp_path: Path
) -> None:
    root = intake.settings.roots[0]
    (root / "good.safetensors").write_bytes(GOOD)
    (tmp_path / "outside.safetensors").write_bytes(GOOD)
    (root / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (root / "folder-link").symlink_to(tmp_path)
    for path in (
        str(tmp_path / "outside.safetensors"),
        "../outside.safetensors",
        str(root / "link.safetensors"),
        "folder-link/outside.safetensors",
        "/etc/passwd",
    ):
        assert refusal(intake, AdapterReference(path=path)).reason is ErrorReason.PATH_NOT_ALLOWED
    missing = refusal(intake, AdapterReference(path="missing.safetensors"))
    assert missing.reason is ErrorReason.SOURCE_NOT_FOUND
    assert intake.fetch(AdapterReference(path="good.safetensors"), Leash()).size_bytes == len(GOOD)
    (root / "link.safetensors").unlink()
    assert intake.fetch(AdapterReference(path=str(root)), Leash()).size_bytes == len(GOOD)


def test_other_sources_are_off_unless_enabled(intake: Intake) -> None:
    for uri in (
        "https://127.0.0.1/x.safetensors",
        "s3://bucket/x",
        "hf://a/b",
        "file:///etc/passwd",
    ):
        fault = refusal(intake, AdapterReference(uri=uri))
        assert fault.reason is ErrorReason.SOURCE_NOT_ENABLED


def test_another_digest_than_the_expected_one_is_refused(intake: Intake) -> None:
    ref = AdapterReference(inline_bytes=GOOD, expected_sha256="0" * 64)
    assert refusal(intake, ref).reason is ErrorReason.SHA256_MISMATCH


def test_stored_bytes_are_found_by_their_digest_alone(intake: Intake) -> None:
    first = intake.fetch(AdapterReference(inline_bytes=GOOD), Leash())
    assert intake.fetch(AdapterReference(stored_sha256=first.sha256), Leash()) == first


@pytest.mark.parametrize("digest", ["0" * 64, "", "0" * 63, "../" + "0" * 61, "F" * 64])
def test_a_digest_without_stored_bytes_asks_for_them(intake: Intake, digest: str) -> None:
    intake.fetch(AdapterReference(inline_bytes=GOOD), Leash())
    with pytest.raises(NoDecisionError) as caught:
        intake.fetch(AdapterReference(stored_sha256=digest), Leash())
    assert caught.value.reason is ErrorReason.ADAPTER_NOT_STORED


def test_stored_bytes_must_have_the_expected_digest_too(intake: Intake) -> None:
    stored_sha256 = intake.fetch(AdapterReference(inline_bytes=GOOD), Leash()).sha256
    ref = AdapterReference(stored_sha256=stored_sha256, expected_sha256="0" * 64)
    with pytest.raises(NoDecisionError) as caught:
        intake.fetch(ref, Leash())
    assert caught.value.reason is ErrorReason.SHA256_MISMATCH


@pytest.mark.parametrize("declared", [len(GOOD) - 1, len(GOOD) + 1])
def test_an_upload_must_have_the_declared_size(intake: Intake, declared: int) -> None:
    sink = intake.receive(declared, "0" * 64, "a.safetensors")

    def send() -> None:
        sink.write(GOOD)
        sink.finish()

    with pytest.raises(NoDecisionError) as caught:
        send()
    assert caught.value.reason is ErrorReason.DECLARED_SIZE_MISMATCH
    assert stored(intake) == []


def test_a_cancelled_caller_stops_the_reading(intake: Intake) -> None:
    leash = Leash()
    leash.cancel()
    with pytest.raises(NoDecisionError, match="went away"):
        intake.fetch(AdapterReference(inline_bytes=GOOD), leash)
    assert stored(intake) == []


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4),
    st.integers(-3, 3),
)
def test_what_is_accepted_means_the_same_to_the_reference_parser(
    edits: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(GOOD)
    for position, value in edits:
        data[position] = value
    mutated = bytes(data[:cut] if cut < 0 else data + bytes(cut))
    limits = IntakeSection()
    try:
        header = read_header(io.BytesIO(mutated), len(mutated), limits)
    except NoDecisionError:
        return
    try:
        reference = dict(deserialize(mutated))
    except SafetensorError as error:
        pytest.fail(f"accepted here, refused by safetensors: {error}")
    assert {entry.name for entry in header.tensors} == set(reference)
    for entry in header.tensors:
        begin, end = header.data_start + entry.begin, header.data_start + entry.end
        assert list(entry.shape) == reference[entry.name]["shape"]
        assert entry.dtype == reference[entry.name]["dtype"]
        assert mutated[begin:end] == bytes(reference[entry.name]["data"])
