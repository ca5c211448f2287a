"""Logs with devices, lines, and a device that breaks when it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.config.devices import AuditDevice
from loragate_server.metrics.metrics import Metrics
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.chain import Link
from loragate_server.record.devices.devices import Devices
from loragate_server.record.devices.line import LogLine, read_line
from loragate_server.record.log import DecisionLog
from loragate_server.record.recorder import Recorder
from loragate_server.record.rotation import files_of
from loragate_server.record.verdict import Caller, Verdict
from testkit import evidence as made

NOBODY = Caller()


@dataclass
class Logged:
    """A log that devices follow; `write` appends lines."""

    path: Path
    folder: Path
    settings: tuple[AuditDevice, ...]
    file_bytes: int = 0
    observer: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.devices = Devices(self.settings, self.folder, self.path, self.observer)
        self.log = DecisionLog(self.path, wrote=self.devices.wrote, file_bytes=self.file_bytes)
        self.devices.begin(self.log.last)

    def write(self, count: int, letters: int = 10) -> Link:
        link = Link()
        for number in range(count):
            link = self.log.append_note({"code": "test", "n": number, "x": "y" * letters})
        return link

    def close(self) -> None:
        self.log.close()
        self.devices.close()


def record(recorder: Recorder, caller: Caller = NOBODY) -> Verdict:
    """Records an ALLOW."""
    found = made.evidence(made.concept(1.25, 0.3), adapters=(made.adapter("a" * 64),))
    return recorder.record(made.decision(VerdictKind.ALLOW, found), caller, stage_times_s={})


def lines_of(log: Path) -> list[bytes]:
    """Every line of the log, through all of its files."""
    return [line for file in files_of(log) for line in file.read_bytes().splitlines()]


def logged_line(number: int, letters: int = 0) -> LogLine:
    """A line of no log in particular."""
    text = (
        b'{"kind":"note","note":{"x":"%s"},"prev":"%s","seq":%d,"time":"2026-05-04T09:30:00+00:00"}'
    )
    return read_line(text % (b"y" * letters, b"0" * 64, number))[0]
