"""`LogLine`: one line of the decision log on its way to a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from loragate_server.record.chain import Link, digest, parse_line


class DeviceError(Exception):
    """A device did not take a line; the text says why, without secrets."""


@dataclass(frozen=True)
class LogLine:
    """A line as it is given to a device.

    Attributes:
        link: number and digest of the line in the log.
        time: when it was written, in ISO 8601.
        kind: `decision`, `review` or `note`.
        text: its bytes without line feed; where values are sealed, those of another line.
    """

    link: Link
    time: str
    kind: str
    text: bytes

    @property
    def age_s(self) -> float:
        """Seconds since it was written; 0 where its time cannot be read or lies ahead."""
        try:
            written = datetime.fromisoformat(self.time)
            return max(0.0, (datetime.now(UTC) - written).total_seconds())
        except (ValueError, TypeError):
            return 0.0


def read_line(text: bytes) -> tuple[LogLine, str]:
    """A line of the log, given without its line feed, and the digest that it claims before it.

    Raises:
        ValueError: it is none of a decision log.
    """
    entry = parse_line(text)
    link = Link(entry["seq"], digest(text))
    return LogLine(link, str(entry.get("time", "")), entry["kind"], text), entry["prev"]


class Sink(Protocol):
    """A device, as far as it is written to. Used by one thread; blocks for its time at most."""

    def take(self, lines: Sequence[LogLine]) -> None:
        """Gives it lines; when this returns, it has all of them.

        Raises:
            DeviceError: it may have taken some of them, and is given all of them again.
        """

    def probe(self) -> None:
        """Finds out, without a line, whether it could be given one.

        Raises:
            DeviceError: it could not.
        """

    def close(self) -> None:
        """Lets it go. Safe to call twice."""
