"""Plays a scan whose driver is killed at given shares, and notes how it fares while it goes.

All that was seen is written down after every look, so that a benchmark that is ended itself goes on
where it was: the scan does so anyway.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from loragate_server.files import whole_file
from loragate_server.testing import environment

LOOK_EVERY_S = 1.0
WEIGH_EVERY_S = 10.0
"""Between two looks at the memory of all processes, which cost some hundredths of a second each."""
TELL_EVERY_S = 30.0


@dataclass
class Played:
    """A scan from its first start to its end.

    Attributes:
        kills: decisions on record when the driver was killed, each time.
        seconds: that the runs took in which files were done, from their first decision on.
        start_s: from each start to the first decision.
        rss_mib: of all processes together, by the share of files that were done: each tenth.
        left_over: processes of Ray that outlived their driver by a minute.
        code: exit code of the last run.
        said: its last line.
    """

    files: int
    kills: list[int] = field(default_factory=list)
    seconds: float = 0.0
    start_s: list[float] = field(default_factory=list)
    rss_mib: dict[str, float] = field(default_factory=dict)
    left_over: int = 0
    code: int | None = None
    said: str = ""

    @property
    def per_s(self) -> float:
        """Files per second while auditors were ready."""
        return self.files / self.seconds if self.seconds else 0.0

    def save(self, file: Path) -> None:
        """Writes it down."""
        with whole_file(file) as partial:
            partial.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, file: Path, files: int) -> Played:
        """What was written down; the beginning where nothing was."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls(files)


def play(
    source: Path,
    state: Path,
    files: int,
    options: Sequence[str],
    kills: Sequence[float],
) -> Played:
    """Runs the command until it ends by itself, killed at each of the shares before."""
    file = state / "played.json"
    played = Played.load(file, files)
    while played.code is None:
        waiting = kills[len(played.kills) :]
        _run(played, file, source, state, options, waiting[0] if waiting else None)
    return played


def _run(
    played: Played,
    file: Path,
    source: Path,
    state: Path,
    options: Sequence[str],
    killed_at: float | None,
) -> None:
    """One run of the command, to its end or to the kill."""
    before, began = recorded(state), time.monotonic()
    spent_s, first_s = played.seconds, 0.0
    weighed_s = told_s = began
    process = _start(source, state, options)
    try:
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            now_s, done = time.monotonic(), recorded(state)
            if not first_s and done > before:
                first_s = now_s
                played.start_s.append(first_s - began)
            if first_s:
                played.seconds = spent_s + now_s - first_s
            if now_s - weighed_s >= WEIGH_EVERY_S:
                weighed_s = now_s
                tenth = f"{10 * done // played.files * 10}%"
                played.rss_mib[tenth] = max(played.rss_mib.get(tenth, 0.0), _rss_mib(process.pid))
                played.save(file)
            if now_s - told_s >= TELL_EVERY_S:
                told_s = now_s
                print(
                    _line(played, done, done - before, now_s - first_s if first_s else 0),
                    flush=True,
                )
            if killed_at is not None and done >= killed_at * played.files:
                process.send_signal(signal.SIGKILL)
                process.wait()
                played.kills.append(recorded(state))
                print(f"killed at {played.kills[-1]} decisions", flush=True)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    played.left_over += _left_over(process.pid)
    said = (state / "scan.log").read_text().splitlines()[-1:]
    if process.returncode in (0, 1):
        played.code, played.said = process.returncode, "".join(said)
    elif process.returncode > 0:
        raise RuntimeError(f"the scan ended early, with {process.returncode}: {said}; start again")
    elif killed_at is None:
        raise RuntimeError(f"the scan was killed by signal {-process.returncode}; start again")
    played.save(file)


def recorded(state: Path) -> int:
    """Decisions on record."""
    file = state / "loragate.sqlite3"
    if not file.exists():
        return 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as one:
        found: int = one.execute("select count(*) from audits").fetchone()[0]
        return found
    return 0


def _line(played: Played, done: int, here: int, spent_s: float) -> str:
    rate = here / spent_s if spent_s else 0.0
    left = f", {(played.files - done) / rate / 60:.0f} min left" if rate else ""
    memory = list(played.rss_mib.values())[-1:]
    weight = f", {memory[0]:.0f} MiB" if memory else ""
    return f"{done} of {played.files} decided, {rate:.2f} a second{weight}{left}"


def _start(source: Path, state: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    with (state / "scan.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "loragate_server", "catalogue", "scan", str(source), *options],
            env=environment(state, {"LORAGATE_THREADS": "1"}),
            stdout=log,
            stderr=log,
        )


def _of_ray(pid: int) -> Iterator[psutil.Process]:
    """The processes of the instance that a driver has started, whatever became of it."""
    sign = f"/lg-ray-{pid}-"
    for one in psutil.process_iter(["cmdline"]):
        if any(sign in word for word in one.info["cmdline"] or ()):
            yield one


def _rss_mib(pid: int) -> float:
    """Resident memory of the driver, its instance and the auditors; pages they share count once."""
    total = 0
    with suppress(psutil.Error):
        driver = psutil.Process(pid)
        for one in {driver, *driver.children(recursive=True)}:
            with suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total / 2**20


def _left_over(pid: int, limit_s: float = 60.0) -> int:
    began = time.monotonic()
    while (count := len(list(_of_ray(pid)))) and time.monotonic() - began < limit_s:
        time.sleep(LOOK_EVERY_S)
    return count
