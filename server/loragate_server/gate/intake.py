"""The gate's own side of intake: blocking intake work on a small pool, under the caller's leash."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.errors import NoDecisionError
from loragate_server.intake.fetch import Intake, UploadSink
from loragate_server.progress import Leash, deadline_passed
from loragate_server.threads import DaemonPool
from loragate_server.tracing.tracer import stage

Result = TypeVar("Result")

INLINE_HASH_LIMIT = 512 << 10
"""Bytes that are hashed on the event loop: below this, changing threads costs more than hashing."""

STUCK_S = 30.0
"""For so long all threads may be busy with the same pieces of work before intake counts as stuck:
reading a local file takes seconds, but one from a file system that has gone may take for ever."""

COALESCE_BYTES = 256 << 10
"""Upload chunks are gathered to this size, so that tiny ones do not cost a thread change each."""


class IntakeDesk:
    """Runs intake on a pool of threads of its own."""

    def __init__(self, intake: Intake, threads: int = 4) -> None:
        self._intake = intake
        self._threads = threads
        self._pool = DaemonPool(threads, "intake")
        # Other people's servers may send a byte a minute, and nothing else shall wait for them.
        self._remote = DaemonPool(threads, "intake-remote")

    async def known_digests(
        self, references: Sequence[AdapterReference], leash: Leash
    ) -> tuple[str, ...] | None:
        """The sha256 of every reference, or None unless each comes with its bytes or its digest.

        A reference whose digest is not the expected one gives None too: intake refuses it with
        the proper reason.
        """
        if any(one.inline_bytes is None and one.stored_sha256 is None for one in references):
            return None

        def digests() -> tuple[str, ...]:
            return tuple(
                one.stored_sha256 or hashlib.sha256(one.inline_bytes or b"").hexdigest()
                for one in references
            )

        if sum(len(one.inline_bytes or b"") for one in references) <= INLINE_HASH_LIMIT:
            found = digests()
        else:
            found = await self.run(digests, leash)
        for one, digest in zip(references, found, strict=True):
            if one.expected_sha256 and one.expected_sha256.lower() != digest:
                return None
        return found

    async def fetch(
        self, references: Sequence[AdapterReference], leash: Leash
    ) -> tuple[StoredFile, ...]:
        """Reads, checks and stores the bytes of every reference, in order.

        Raises:
            NoDecisionError: whatever intake refuses; DEADLINE_EXCEEDED.
        """

        def fetch_all() -> tuple[StoredFile, ...]:
            files = []
            for number, reference in enumerate(references):
                leash.check()
                try:
                    files.append(self._intake.fetch(reference, leash))
                except NoDecisionError as error:
                    error.adapter = number
                    raise
            return tuple(files)

        with stage("intake"):
            remote = any(one.uri is not None for one in references)
            pool = self._remote if remote else self._pool
            return await until_deadline(asyncio.wrap_future(pool.submit(fetch_all)), leash)

    def receive(
        self,
        size_bytes: int,
        sha256: str,
        file_name: str,
        hold: Callable[[int], None] = lambda _: None,
    ) -> UploadSession:
        """Begins an upload.

        Args:
            size_bytes: as declared.
            sha256: as declared.
            file_name: as declared.
            hold: told of bytes that have come, before they are taken; may refuse them.

        Raises:
            NoDecisionError: FILE_TOO_LARGE, DISK_FULL and what else intake refuses.
        """
        return UploadSession(self, self._intake.receive(size_bytes, sha256, file_name), hold)

    async def run(self, work: Callable[[], Result], leash: Leash) -> Result:
        """Runs blocking work on the pool, and stops waiting for it at the leash's deadline."""
        return await until_deadline(asyncio.wrap_future(self.start(work)), leash)

    def start(self, work: Callable[[], Result]) -> Future[Result]:
        """Begins blocking work on the pool."""
        return self._pool.submit(work)

    def require_free(self, stuck_s: float = STUCK_S) -> None:
        """Raises while no file can be read, because all threads have ended or still read others.

        Raises:
            RuntimeError: they have ended, or still read for longer than `stuck_s`.
        """
        if not self._pool.alive:
            raise RuntimeError("the threads that read adapters have ended")
        busy_s = self._pool.busy_s()
        if busy_s > stuck_s:
            raise RuntimeError(
                f"all {self._threads} threads that read adapters are busy for {busy_s:.0f} s"
            )

    def close(self) -> None:
        """Takes no more work; what runs is left alone, since it may never end."""
        for pool in (self._pool, self._remote):
            pool.shutdown(cancel_futures=True)


class UploadSession:
    """One upload on its way into the store."""

    def __init__(self, desk: IntakeDesk, sink: UploadSink, hold: Callable[[int], None]) -> None:
        self._desk = desk
        self._sink = sink
        self._hold = hold
        self._gathered = bytearray()
        self._ended = False
        self._last: Future[Any] | None = None
        self._spent_s = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds that taking the file in has cost, without the waits for its sender."""
        return self._spent_s

    async def write(self, chunk: bytes, leash: Leash) -> None:
        """Takes the next bytes of the file.

        Raises:
            NoDecisionError: DECLARED_SIZE_MISMATCH as soon as there are too many, DISK_FULL,
                BYTE_BUDGET_EXHAUSTED.
        """
        leash.check()
        self._hold(len(chunk))
        self._gathered += chunk
        if len(self._gathered) >= COALESCE_BYTES:
            await self._flush(leash)

    async def finish(self, leash: Leash) -> StoredFile:
        """Checks and stores what was received.

        Raises:
            NoDecisionError: whatever intake refuses.
        """
        with stage("intake"):
            if self._gathered:
                await self._flush(leash)
            stored = await self._run(self._sink.finish, leash)
        self._ended = True
        return stored

    def close(self) -> None:
        """Throws away what was received, unless `finish` returned."""
        if not self._ended:
            self._ended = True
            self._gathered.clear()
            # After the thread that may still write for a caller who has gone.
            if self._last is None:
                self._sink.abort()
            else:
                sink = self._sink
                self._last.add_done_callback(lambda _: sink.abort())
                self._last = None

    async def _flush(self, leash: Leash) -> None:
        chunk, self._gathered = bytes(self._gathered), bytearray()
        await self._run(lambda: self._sink.write(chunk), leash)

    async def _run(self, work: Callable[[], Result], leash: Leash) -> Result:
        began = time.monotonic()
        running = self._desk.start(work)
        self._last = running
        try:
            return await until_deadline(asyncio.wrap_future(running), leash)
        finally:
            self._spent_s += time.monotonic() - began
            if running.done():
                self._last = None
            del running  # else its error would hold this frame, and this frame the error


async def until_deadline(running: Awaitable[Result], leash: Leash) -> Result:
    """Awaits `running`, at most until the leash's deadline.

    Raises:
        NoDecisionError: DEADLINE_EXCEEDED; the work itself learns of it from its leash.
    """
    end_s = leash.deadline_monotonic_s
    try:
        async with asyncio.timeout(
            None if end_s is None else max(0.0, end_s - time.monotonic())
        ) as limit:
            return await running
    except TimeoutError:
        if not limit.expired():  # somebody else's
            raise
        raise deadline_passed() from None
    finally:
        del running  # else its error would hold this frame, and this frame the error
