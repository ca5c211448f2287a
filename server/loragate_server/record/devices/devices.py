"""`Devices`: all audit devices of a server. What required ones do not take, is not answered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from loragate_server.config.devices import AuditDevice
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.chain import Link
from loragate_server.record.devices.file import FileSink
from loragate_server.record.devices.line import Sink
from loragate_server.record.devices.observer import DeviceObserver
from loragate_server.record.devices.position import PositionError, read_position
from loragate_server.record.devices.sealing import Sealer
from loragate_server.record.devices.shipper import Shipper
from loragate_server.record.devices.syslog import SyslogSink
from loragate_server.record.devices.tail import BATCH_LINES, Tail
from loragate_server.record.failures import RETRY_AFTER_S, log_failure

CLOSE_LIMIT_S = 1.5
"""For the last lines of all devices together, and again for attempts that run."""


class Devices:
    """Gives each device every line that is written from now on, and what it has missed.

    Thread-safe, but for `begin`, which comes after the log was opened.
    """

    def __init__(
        self,
        settings: tuple[AuditDevice, ...],
        folder: Path,
        log: Path,
        observer: DeviceObserver | None = None,
    ) -> None:
        """Reaches nobody yet.

        Args:
            settings: who they are.
            folder: where it is kept how far each has come.
            log: the decision log.
            observer: is told of every attempt.
        """
        self._settings, self._folder, self._log = settings, folder, log
        self._shippers = [
            (
                one,
                Shipper(
                    one.name,
                    _sink(one),
                    folder,
                    observer or DeviceObserver(),
                    required=one.required,
                    sealer=None
                    if one.hmac_key_file is None
                    else Sealer(one.hmac_key_file.expanduser()),
                ),
            )
            for one in settings
        ]

    def begin(self, written: Link) -> None:
        """Starts with each device where it had come to; with a new one, at the end of the log.

        Args:
            written: the end of the log.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE or DISK_FULL; the log cannot be read, or the
                positions cannot.
        """
        try:
            for settings, shipper in self._shippers:
                known = read_position(self._folder, settings.name)
                if known is None:
                    known = Link() if settings.history else written
                tail = Tail(self._log, known)
                if tail.last.seq > written.seq:  # of a log that is not there any more
                    tail.close()
                    tail = Tail(self._log, Link())
                shipper.begin(tail, written)
        except PositionError as error:
            raise NoDecisionError(
                ErrorReason.DECISION_LOG_UNAVAILABLE,
                str(error),
                remedy="Until it is known what an audit device has, nothing is decided.",
                metadata={"file": self._log.name},
            ) from error
        except OSError as error:
            raise log_failure(error, self._log) from error

    def wrote(self, link: Link, line: bytes) -> None:
        """A line is on the disk. Never blocks."""
        for _, shipper in self._shippers:
            shipper.wrote(link)

    def require(self) -> None:
        """Makes sure that the next line could be given to every required device.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE; names the device.
        """
        for settings, shipper in self._required():
            if trouble := shipper.trouble:
                raise _not_taken(settings.name, trouble)
            if (behind := shipper.lines_behind) > BATCH_LINES:
                raise _not_taken(settings.name, f"it is still given {behind} lines that it missed")

    def require_taken(self, link: Link) -> None:
        """Waits until every required device has a line, each for its `timeout_s` at most.

        Raises:
            NoDecisionError: as `require`.
        """
        for settings, shipper in self._required():
            if not shipper.wait_for(link, settings.timeout_s):
                why = shipper.trouble or f"no answer within {settings.timeout_s:g} s"
                raise _not_taken(settings.name, why)

    def behind(self) -> Mapping[str, tuple[int, float]]:
        """By device: lines of the log that it does not have, and the age of the oldest, seconds."""
        return {one.name: (one.lines_behind, one.seconds_behind) for _, one in self._shippers}

    def close(self) -> None:
        """Ends; what devices do not have by then, they get after the next start."""
        for step in (Shipper.end, Shipper.join):
            limit_s = time.monotonic() + CLOSE_LIMIT_S
            for _, shipper in self._shippers:
                step(shipper, max(0.0, limit_s - time.monotonic()))

    def _required(self) -> list[tuple[AuditDevice, Shipper]]:
        return [one for one in self._shippers if one[0].required]


def _sink(settings: AuditDevice) -> Sink:
    if settings.syslog is not None:
        return SyslogSink(settings.syslog, settings.timeout_s)
    if settings.file is not None:
        return FileSink(settings.file.path)
    if settings.otlp is None:
        raise ValueError(f"{settings.name} names no target")
    from loragate_server.record.devices.otlp import OtlpSink  # an extra, which others do without

    return OtlpSink(settings.otlp, settings.timeout_s)


def _not_taken(name: str, why: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.DECISION_LOG_UNAVAILABLE,
        f"The required audit device {name} does not take the decision: {why.rstrip('.')}.",
        remedy="The operator has to bring the device back; without it nothing is decided.",
        metadata={"device": name},
        retry_after_s=RETRY_AFTER_S,
    )
