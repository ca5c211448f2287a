"""`Intake`: bytes from anywhere, read once, checked, and kept under their sha256."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from loragate_server.adapter.reference import SHA256_REMEDY, AdapterReference, StoredFile, is_sha256
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.content import HEAD_BYTES, refuse_by_content
from loragate_server.intake.header import read_header
from loragate_server.intake.paths import unreadable
from loragate_server.intake.scrub import Scrubber
from loragate_server.intake.sources import Source, open_source
from loragate_server.intake.store import ContentStore, not_stored, raise_disk
from loragate_server.intake.weights import KnownWeights, read_weights
from loragate_server.progress import Leash
from loragate_server.recent import REMEMBERED
from loragate_server.time_limit import watch_from_now_on

CHUNK_BYTES = 2**20


class Intake:
    """Takes adapter files in. Thread-safe.

    Args:
        settings: sources and limits.
        store_dir: the folder that holds every file taken in, under its digest.
        on_corrupt: told of every stored file that somebody else has changed.
        remembered: of how many stored files it is remembered what was found out about them.
    """

    def __init__(
        self,
        settings: IntakeSection,
        store_dir: Path,
        on_corrupt: Callable[[], None] = lambda: None,
        *,
        remembered: int = REMEMBERED,
    ) -> None:
        self.settings = settings
        self.store_dir = store_dir
        self._store = ContentStore(
            store_dir, settings.store_limit_bytes, on_corrupt, remembered=remembered
        )
        self._weights = KnownWeights(settings, remembered)
        self._scrubber = Scrubber(self._store, settings.scrub_interval_s)

    def start(self) -> None:
        """Starts its threads: one looks through the store until `close`, one after limits."""
        self._scrubber.start()
        watch_from_now_on()

    def close(self) -> None:
        """Ends what `start` began."""
        self._scrubber.close()

    def check(self) -> None:
        """Finds out whether the next file could be stored; as `ContentStore.check`."""
        self._store.check()

    def keep(self, sha256: str, seconds: float) -> Path | None:
        """The stored file with this digest, which stays for so long; None where there is none.

        May read the whole file, to be sure that it is what was audited.
        """
        return self._store.keep(sha256, seconds) if is_sha256(sha256) else None

    def fetch(self, ref: AdapterReference, leash: Leash) -> StoredFile:
        """Reads a reference's bytes once, hashing while reading, and checks them.

        Raises:
            NoDecisionError: every reason that concerns sources and files, CANCELLED and
                DEADLINE_EXCEEDED.
        """
        if ref.stored_sha256 is not None and ref.source_count == 1:
            return self._stored(ref.stored_sha256, ref.expected_sha256)
        with open_source(ref, self.settings) as source:
            if source.size_bytes is not None:
                self._refuse_large(source.size_bytes)
            sink = Receiver(self._store, self.settings, self._weights)
            until_s = time.monotonic() + self.settings.fetch_total_s
            try:
                while chunk := read_chunk(source, ref):
                    leash.check()
                    if ref.uri is not None and time.monotonic() > until_s:
                        raise TimeoutError  # which `open_source` says as of every other cause
                    sink.write(chunk)
                return sink.finish(ref.expected_sha256, source.config_json)
            finally:
                sink.abort()

    def receive(self, header_size_bytes: int, sha256: str, file_name: str) -> UploadSink:
        """Begins an upload of a declared size and digest.

        Raises:
            NoDecisionError: FILE_TOO_LARGE or REQUEST_INVALID.
        """
        self._refuse_large(header_size_bytes)
        if not is_sha256(sha256):
            raise NoDecisionError(
                ErrorReason.REQUEST_INVALID,
                f"The upload of {file_name!r} declares no valid sha256.",
                remedy=SHA256_REMEDY,
                metadata={"field": "header.sha256"},
            )
        receiver = Receiver(self._store, self.settings, self._weights)
        return UploadSink(receiver, header_size_bytes, sha256)

    def _stored(self, sha256: str, expected_sha256: str | None) -> StoredFile:
        """Bytes that were checked when they came into the store."""
        require_expected(sha256, expected_sha256)
        path = self._store.find(sha256) if is_sha256(sha256) else None
        try:
            if path is not None:
                found = StoredFile(sha256, path.stat().st_size, path)
                return replace(found, weights_sha256=self._weights.of(found))
        except FileNotFoundError:
            pass  # evicted between the two looks
        raise not_stored(sha256)

    def _refuse_large(self, size_bytes: int) -> None:
        if size_bytes > self.settings.max_file_bytes:
            raise too_large(size_bytes, self.settings)


class Receiver:
    """Bytes on their way into the store: hashed as they come, checked when they are complete."""

    def __init__(self, store: ContentStore, settings: IntakeSection, weights: KnownWeights) -> None:
        self._store = store
        self._settings = settings
        self._weights = weights
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = store.incoming()
        self._head = b""
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises:
            NoDecisionError: FILE_TOO_LARGE, DISK_FULL, or a refusal by the first bytes.
        """
        if self._file is None:
            raise ValueError("this receiver is closed")
        if len(self._head) < HEAD_BYTES and len(self._head) + len(chunk) >= HEAD_BYTES:
            refuse_by_content((self._head + chunk)[:HEAD_BYTES])
        self._head = (
            (self._head + chunk)[:HEAD_BYTES] if len(self._head) < HEAD_BYTES else self._head
        )
        self.size_bytes += len(chunk)
        if self.size_bytes > self._settings.max_file_bytes:
            raise too_large(self.size_bytes, self._settings)
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise_disk(error)

    def finish(self, expected_sha256: str | None, config_json: str | None = None) -> StoredFile:
        """Checks the complete file and gives it its place in the store.

        What lies there already stays only where it is proven to be the same.
        """
        if self._file is None:
            raise ValueError("this receiver is closed")
        sha256 = self._digest.hexdigest()
        require_expected(sha256, expected_sha256)
        stored = self._store.find(sha256)
        if stored is None:
            stored = self._check_and_store(self._file, sha256)
        else:
            self._store.discard(self._file)
        self._file = None
        found = StoredFile(sha256, self.size_bytes, stored, config_json)
        return replace(found, weights_sha256=self._weights.of(found))

    def _check_and_store(self, file: BinaryIO, sha256: str) -> Path:
        refuse_by_content(self._head)
        try:
            file.flush()
        except OSError as error:
            raise_disk(error)
        with open(file.name, "rb") as checked:  # noqa: PTH123
            header = read_header(checked, self.size_bytes, self._settings)
            weights_sha256 = read_weights(checked, header)
        stored = self._store.adopt(file, sha256)
        self._weights.learn(sha256, weights_sha256)
        return stored

    def abort(self) -> None:
        """Throws away what was not finished; does nothing after `finish`."""
        if self._file is not None:
            self._store.discard(self._file)
            self._file = None


class UploadSink:
    """An upload that must have exactly the declared size and digest."""

    def __init__(self, receiver: Receiver, declared_bytes: int, sha256: str) -> None:
        self._receiver = receiver
        self._declared_bytes = declared_bytes
        self._sha256 = sha256

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes; DECLARED_SIZE_MISMATCH as soon as there are too many."""
        if self._receiver.size_bytes + len(chunk) > self._declared_bytes:
            self.abort()
            raise self._mismatch(self._receiver.size_bytes + len(chunk))
        self._receiver.write(chunk)

    def finish(self) -> StoredFile:
        """Checks size, digest and content, and stores the file."""
        try:
            if self._receiver.size_bytes != self._declared_bytes:
                raise self._mismatch(self._receiver.size_bytes)
            return self._receiver.finish(self._sha256)
        finally:
            self.abort()

    def abort(self) -> None:
        """Throws the bytes away; does nothing after `finish`."""
        self._receiver.abort()

    def _mismatch(self, received: int) -> NoDecisionError:
        return NoDecisionError(
            ErrorReason.DECLARED_SIZE_MISMATCH,
            f"The upload declared {self._declared_bytes} bytes and sent {received}.",
            remedy="Declare the exact size of the file.",
            metadata={
                "declared_bytes": str(self._declared_bytes),
                "received_bytes": str(received),
            },
        )


def read_chunk(source: Source, ref: AdapterReference) -> bytes:
    """The next bytes, which come from where they were opened: a path may be on a network."""
    try:
        return source.file.read(CHUNK_BYTES)
    except OSError as error:
        if ref.uri is not None:
            raise
        raise unreadable("The source", error) from error


def require_expected(sha256: str, expected_sha256: str | None) -> None:
    """Refuses bytes that are not those that were meant.

    Raises:
        NoDecisionError: SHA256_MISMATCH.
    """
    if expected_sha256 and expected_sha256.lower() != sha256:
        raise NoDecisionError(
            ErrorReason.SHA256_MISMATCH,
            f"The bytes have sha256 {sha256[:64]}, not {expected_sha256[:64]}.",
            remedy="Audit the file that will be loaded; it has changed or was cut short.",
            metadata={"expected_sha256": expected_sha256[:64], "actual_sha256": sha256[:64]},
        )


def too_large(size_bytes: int, settings: IntakeSection) -> NoDecisionError:
    """FILE_TOO_LARGE."""
    return NoDecisionError(
        ErrorReason.FILE_TOO_LARGE,
        f"The file has {size_bytes} bytes or more; {settings.max_file_bytes} is the limit.",
        remedy="Raise intake.max_file_bytes if adapters of this size are expected.",
        metadata={
            "allowed_bytes": str(settings.max_file_bytes),
            "actual_bytes": str(size_bytes),
        },
    )
