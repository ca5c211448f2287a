"""`Shipper`: brings a device every line of the log, in order, on a thread of its own.

What waits for a device is the log itself, read on from the device's kept position; so nothing is
lost that a device misses for hours, and no memory grows meanwhile. A line counts as taken once the
device has it, and the position follows within a second: what was taken just before a crash is given
again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from loragate_server.record.chain import Link
from loragate_server.record.devices.line import DeviceError, LogLine, Sink
from loragate_server.record.devices.observer import DeviceObserver
from loragate_server.record.devices.position import save_position
from loragate_server.record.devices.sealing import KeyFileError, Sealer
from loragate_server.record.devices.tail import Tail

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
LONGEST_PAUSE_OF_REQUIRED_S = 2.0
"""Nothing is decided until such a device is back, so it is asked often."""
PROBE_EVERY_S = 5.0
SAVE_EVERY_S = 1.0
TROUBLE_S = 5.0
"""After what nobody foresaw."""

_NOT_YET = "it has not been reached yet"
_log = logging.getLogger(__name__)


class Shipper:
    """Of one device. Thread-safe, but for `begin`, which comes first."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        folder: Path,
        observer: DeviceObserver,
        *,
        required: bool = False,
        sealer: Sealer | None = None,
    ) -> None:
        """Args: `folder` is where the position is kept; nothing is done before `begin`."""
        self.name, self.required = name, required
        self._sink, self._folder, self._observer, self._sealer = sink, folder, observer, sealer
        self._changed = threading.Condition()
        self._written = self._taken = self._saved = Link()
        self._pending: list[LogLine] = []
        self._oldest: LogLine | None = None
        self._behind_since_s: float | None = None
        self._trouble = _NOT_YET
        self._gap = 0
        self._saved_s = self._reached_s = float("-inf")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"device-{name}", daemon=True)
        longest_s = LONGEST_PAUSE_OF_REQUIRED_S if required else LONGEST_PAUSE_S
        self._retrying = Retrying(
            sleep=sleep_using_event(self._ending),
            stop=stop_when_event_set(self._ending),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=longest_s)
            + wait_random(0.0, FIRST_PAUSE_S),
            retry=retry_if_exception_type((DeviceError, KeyFileError, OSError)),
            before_sleep=self._failed,
        )

    def begin(self, tail: Tail, written: Link) -> None:
        """Starts to give what `tail` reads, as far as it has been written.

        Raises:
            OSError: the position cannot be kept.
        """
        self._tail, self._written, self._taken = tail, written, tail.last
        self._gap = self._count_missed(0, tail.last.seq - tail.missed)
        if written.seq > tail.last.seq:
            self._behind_since_s = time.monotonic()
        self._save()
        self._thread.start()

    def wrote(self, link: Link) -> None:
        """A line is on the disk."""
        with self._changed:
            if self._behind_since_s is None:
                self._behind_since_s = time.monotonic()
            self._written = link
            self._changed.notify_all()

    def wait_for(self, link: Link, limit_s: float) -> bool:
        """Whether the device has a line within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken.seq >= link.seq, limit_s)
            return self._taken.seq >= link.seq > self._gap

    @property
    def trouble(self) -> str:
        """Why it took nothing at the last attempt; empty where all is well."""
        with self._changed:
            return self._trouble

    @property
    def lines_behind(self) -> int:
        """Lines of the log that the device does not have."""
        with self._changed:
            return max(0, self._written.seq - self._taken.seq)

    @property
    def seconds_behind(self) -> float:
        """Age of the oldest of them."""
        with self._changed:
            if self._behind_since_s is None:
                return 0.0
            here_s = time.monotonic() - self._behind_since_s
            return here_s if self._oldest is None else max(here_s, self._oldest.age_s)

    def end(self, limit_s: float) -> None:
        """Takes no more up, after a moment for the last lines where the device is well."""
        if self._thread.is_alive() and not self.trouble:
            self.wait_for(self._written, limit_s)
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, limit_s: float) -> None:
        """Waits for the attempt that runs, after `end`."""
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                with suppress(RetryError):  # it ends
                    self._retrying(self._step)
            except Exception as error:  # a thread that ended would only show by its absence
                _log.exception("audit device %s: it will be tried again", self.name)
                self._troubled(f"{type(error).__name__}; the server's log says more")
                self._ending.wait(TROUBLE_S)
        with suppress(OSError):
            self._save()
        self._tail.close()
        self._sink.close()

    def _step(self) -> None:
        """Gives all that there is; then waits for the next line, or for the time to look again."""
        self._ship()
        if time.monotonic() - self._reached_s >= PROBE_EVERY_S:
            self._sink.probe()
            self._reached()
        self._save_in_time(idle=True)
        with self._changed:
            if self._written.seq <= self._taken.seq and not self._ending.is_set():
                self._changed.wait(PROBE_EVERY_S)

    def _ship(self) -> None:
        while not self._ending.is_set():
            if not self._pending:
                with self._changed:
                    written = self._written
                self._pending = self._tail.read(written)
                self._gap = self._count_missed(self._gap, self._taken.seq)
            if not self._pending:
                return
            lines = self._pending
            self._oldest = lines[0]
            self._sink.take(lines if self._sealer is None else self._sealer.sealed(lines))
            self._pending = []
            self._took(lines)

    def _took(self, lines: Sequence[LogLine]) -> None:
        with self._changed:
            self._taken = lines[-1].link
            self._oldest = None
            caught_up = self._taken.seq >= self._written.seq
            self._behind_since_s = None if caught_up else time.monotonic()
            self._changed.notify_all()
        self._reached()
        self._observer.device_took(self.name, len(lines))
        self._save_in_time(idle=False)

    def _reached(self) -> None:
        self._reached_s = time.monotonic()
        with self._changed:
            was, self._trouble = self._trouble, ""
        if was and was != _NOT_YET:
            _log.info("audit device %s takes lines again", self.name)

    def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._troubled(str(error))

    def _troubled(self, why: str) -> None:
        with self._changed:
            was, self._trouble = self._trouble, why
        self._reached_s = float("-inf")  # whether it is well again shows by a probe at the latest
        self._observer.device_failed(self.name)
        if was in ("", _NOT_YET):  # who is away for hours fills no log
            _log.warning("audit device %s: %s", self.name, why)

    def _count_missed(self, gap: int, had: int) -> int:
        """The number of the last line that was gone before the device had it.

        Args:
            gap: what it was before.
            had: number of the last line that the device has of those before the gap.
        """
        if not self._tail.missed:
            return gap
        missed, self._tail.missed = self._tail.missed, 0
        _log.error(
            "audit device %s: %d lines after line %d of the decision log are gone; it never got "
            "them, and goes on behind them",
            self.name,
            missed,
            had,
        )
        self._observer.device_missed(self.name, missed)
        return had + missed

    def _save_in_time(self, *, idle: bool) -> None:
        if idle or time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        with self._changed:
            taken = self._taken
        if taken != self._saved or self._saved_s < 0:
            save_position(self._folder, self.name, taken)
            self._saved, self._saved_s = taken, time.monotonic()
