"""Prunes record, log and store as the configuration says, by the command or in the background."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from loragate_server.config.schema import Config, StartError
from loragate_server.errors import NoDecisionError
from loragate_server.intake import uploads
from loragate_server.intake.quarantine import QuarantineError, read_key, seal
from loragate_server.intake.uploads import Upload
from loragate_server.record.database import Database
from loragate_server.record.devices.position import PositionError, least_taken
from loragate_server.record.log import DecisionLog
from loragate_server.record.retention.archive import Archive, ArchiveError
from loragate_server.record.retention.files import file_holds, is_blocked
from loragate_server.record.retention.holds import holds_in_force
from loragate_server.record.retention.log_files import old_files, prune_files
from loragate_server.record.retention.pruner import Pruner, Tally, cut_off

TIMEOUT_S = 60.0
"""For the database: what is asked here goes through whole tables, and nobody waits for it."""

_CLOSE_LIMIT_S = 2.0

_log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """What goes, or went.

    Attributes:
        tallies: by kind.
        log_left: why files of the log were left, where they were.
    """

    tallies: list[Tally] = field(default_factory=list)
    log_left: str = ""


def plan(config: Config, now: datetime) -> Sweep:
    """What would go now; takes nothing away.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE.
        OSError: log or store cannot be read.
    """
    return _Sweeper(config, now).run(act=False)


def prune(
    config: Config,
    now: datetime,
    log: DecisionLog | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> Sweep:
    """Takes away what is over.

    Args:
        config: what is kept for how long.
        now: timezone-aware.
        log: the open log; None opens it, which a running server prevents, and then its files are
            left.
        checkpoint: called between two batches; what it raises ends the work.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE, DISK_FULL or DECISION_LOG_UNAVAILABLE.
        ArchiveError: what could not be archived was left.
        QuarantineError: a blocked file could not be sealed and was left.
        OSError: log or store cannot be read or changed.
    """
    return _Sweeper(config, now, checkpoint).run(act=True, log=log)


class _Sweeper:
    def __init__(
        self, config: Config, now: datetime, checkpoint: Callable[[], None] = lambda: None
    ) -> None:
        self._config = config
        self._settings = config.retention
        self._now = now
        self._checkpoint = checkpoint
        self._archive = Archive(self._settings.archive)

    def run(self, *, act: bool, log: DecisionLog | None = None) -> Sweep:
        with closing(Database(self._config.database, TIMEOUT_S)) as database:
            pruner = Pruner(database, self._settings, self._archive, self._now, self._checkpoint)
            # First, while the record still says which files are blocked.
            sweep = Sweep(self._uploads(database, act=act))
            sweep.tallies += pruner.prune() if act else pruner.plan()
            self._log_files(database, sweep, log, act=act)
        return sweep

    def _log_files(
        self, database: Database, sweep: Sweep, log: DecisionLog | None, *, act: bool
    ) -> None:
        before = cut_off(self._settings.decisions, self._now)
        tally = Tally("log files", before)
        sweep.tallies.append(tally)
        if before is None:
            return
        with database.reading() as connection:
            holds = holds_in_force(connection)
        try:
            taken = least_taken(self._config.device_folder, self._config.audit_devices)
        except PositionError as error:
            sweep.log_left = f"the files of the decision log are left: {error}"
            return
        files = old_files(self._config.decision_log_file, before, holds, tally, taken)
        if not act or not files:
            return
        if log is not None:
            prune_files(files, log, self._archive)
            return
        try:
            own = DecisionLog(self._config.decision_log_file)
        except NoDecisionError as error:
            tally.count = tally.size_bytes = 0
            sweep.log_left = f"{len(files)} files of the decision log are left: {error.message}"
            return
        with closing(own):
            prune_files(files, own, self._archive)

    def _uploads(self, database: Database, *, act: bool) -> list[Tally]:
        """Blocked files as the policy says, then those that nobody asks about any more."""
        before = cut_off(self._settings.uploads, self._now)
        old, blocked = Tally("uploads", before), Tally("blocked uploads", self._now)
        if self._settings.blocked_uploads == "keep":
            blocked.before = None
        if before is None and blocked.before is None:
            return [old, blocked]
        for upload in uploads.uploads(self._config.store_folder):
            self._checkpoint()
            with database.reading() as connection:
                bad = blocked.before is not None and is_blocked(connection, upload.sha256)
                over = before is not None and upload.used_at < before
                if not (bad or over):
                    continue
                tally = blocked if bad else old
                held = file_holds(connection, upload.sha256, holds_in_force(connection))
            if held and not (bad and self._settings.blocked_uploads == "quarantine"):
                tally.held.update(hold.name for hold in held)
                continue
            tally.count += 1
            tally.size_bytes += upload.size_bytes
            if act:
                self._take_away(upload, blocked=bad)
        return [old, blocked]

    def _take_away(self, upload: Upload, *, blocked: bool) -> None:
        key_file = self._settings.quarantine_key_file
        if blocked and key_file is not None:
            key = read_key(key_file.expanduser())
            seal(upload, self._config.quarantine_folder, key)
        uploads.remove(upload)


class Retainer:
    """Prunes now and then, on a thread of its own, until it is closed."""

    def __init__(self, config: Config, log: DecisionLog) -> None:
        self._config = config
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    def start(self) -> None:
        """Begins; the first pruning comes one interval later."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the batch that it is at."""
        self._stop.set()
        self._thread.join(_CLOSE_LIMIT_S)

    def _work(self) -> None:
        while not self._stop.wait(self._config.retention.every_s):
            try:
                sweep = prune(self._config, datetime.now(UTC), self._log, self._go_on)
                _tell(sweep.tallies)
            except _ClosedError:
                return
            except (NoDecisionError, ArchiveError, QuarantineError, OSError) as error:
                _log.error("retention: %s", error)
            except Exception:  # the next time may go well, and decisions go on meanwhile
                _log.exception("retention failed")

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _ClosedError


class _ClosedError(Exception):
    """The server ends."""


def open_retention(config: Config, log: DecisionLog, stack: AsyncExitStack) -> None:
    """Starts pruning in the background where the configuration wants it.

    Raises:
        StartError: blocked files shall be sealed, and there is no key.
    """
    if (file := config.retention.quarantine_key_file) is not None:
        try:
            read_key(file.expanduser())
        except QuarantineError as error:
            raise StartError(f"retention.quarantine_key_file: {error}") from error
    if config.retention.every_s == 0:
        return
    retainer = Retainer(config, log)
    retainer.start()
    stack.push_async_callback(asyncio.to_thread, retainer.close)


def _tell(tallies: Sequence[Tally]) -> None:
    for one in tallies:
        if one.count:
            _log.info("retention: %d %s went, %d bytes", one.count, one.kind, one.size_bytes)
