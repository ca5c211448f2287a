"""Sealed files: opened by the right key alone, and only whole."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loragate_server.intake.quarantine import QuarantineError, opened, read_key, seal
from loragate_server.intake.uploads import Upload, remove, uploads

MIB = 1 << 20
KEY = b"k" * 32


def stored(store: Path, data: bytes) -> Upload:
    sha256 = hashlib.sha256(data).hexdigest()
    path = store / sha256[:2] / f"{sha256}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Upload(sha256, path, len(data), datetime.now(UTC))


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_a_sealed_file_opens_to_the_same_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    upload = stored(tmp_path / "store", data)
    file = seal(upload, tmp_path / "quarantine", KEY)
    assert b"".join(opened(file, upload.sha256, KEY)) == data
    assert upload.path.exists()
    assert file.stat().st_mode & 0o777 == 0o600
    assert size < 16 or data[:16] not in file.read_bytes()
    assert file.read_bytes() != seal(upload, tmp_path / "again", KEY).read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[: 18 + 16 + MIB + 16],  # cut off between two chunks
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: data + b"x",
        lambda _: b"",
        lambda _: b"no sealed file" * 10,
    ],
    ids=["shorter", "a chunk less", "a byte", "the salt", "longer", "empty", "another file"],
)
def test_a_sealed_file_that_was_changed_does_not_open(tmp_path: Path, spoil) -> None:
    upload = stored(tmp_path / "store", os.urandom(2 * MIB + 5))
    file = seal(upload, tmp_path / "quarantine", KEY)
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(QuarantineError):
        list(opened(file, upload.sha256, KEY))


def test_neither_another_key_nor_another_digest_opens_it(tmp_path: Path) -> None:
    upload = stored(tmp_path / "store", b"weights")
    file = seal(upload, tmp_path / "quarantine", KEY)
    for sha256, key in ((upload.sha256, b"j" * 32), ("0" * 64, KEY)):
        with pytest.raises(QuarantineError, match="another"):
            list(opened(file, sha256, key))


def test_a_stored_file_that_is_not_what_it_is_called_is_not_sealed(tmp_path: Path) -> None:
    upload = stored(tmp_path / "store", b"weights")
    upload.path.write_bytes(b"others")
    with pytest.raises(QuarantineError, match="not the file"):
        seal(upload, tmp_path / "quarantine", KEY)
    assert list((tmp_path / "quarantine").iterdir()) == []


def test_uploads_are_what_is_named_by_a_digest(tmp_path: Path) -> None:
    upload = stored(tmp_path, b"weights")
    (tmp_path / "incoming-x").write_bytes(b"on its way")
    (upload.path.parent / "notes.safetensors").write_bytes(b"of somebody else")
    [found] = uploads(tmp_path)
    assert (found.sha256, found.size_bytes) == (upload.sha256, 7)
    remove(found)
    remove(found)
    assert list(uploads(tmp_path)) == []


@pytest.mark.parametrize(
    "text", [b"", b"not base64 !", base64.b64encode(b"short"), base64.b64encode(b"x" * 33)]
)
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: bytes) -> None:
    (file := tmp_path / "key").write_bytes(text)
    with pytest.raises(QuarantineError):
        read_key(file)
    with pytest.raises(QuarantineError, match="cannot be read"):
        read_key(tmp_path / "none")


def test_a_key_may_end_in_a_line_feed(tmp_path: Path) -> None:
    (file := tmp_path / "key").write_bytes(base64.b64encode(KEY) + b"\n")
    assert read_key(file) == KEY
