"""Plays a scan whose driver is killed at given shares, and looks at what is on record then."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from loragate_server.catalogue.results import read_parts
from loragate_server.record.codec import parse_verdict
from loragate_server.record.database import Database, Span
from loragate_server.record.verdict import Verdict
from loragate_server.replay import stored_decisions
from loragate_server.testing import environment

LOOK_EVERY_S = 1.0


@dataclass
class Played:
    """A scan from its first start to its end.

    Attributes:
        kills: decisions on record when the driver was killed, each time.
        seconds: that the runs took in which files were done, from their first decision on.
        start_s: from each start to the first decision.
        rss_mib: of all processes together, by the share of files that were done: each tenth.
        twice: digests with more than one decision.
        lost: places without a result.
        left_over: processes of Ray that outlived their driver by a minute.
    """

    files: int
    kills: list[int] = field(default_factory=list)
    seconds: float = 0.0
    start_s: list[float] = field(default_factory=list)
    rss_mib: dict[str, float] = field(default_factory=dict)
    decided: int = 0
    twice: int = 0
    lost: int = 0
    left_over: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    poison: dict[str, str] = field(default_factory=dict)
    said: str = ""

    @property
    def per_s(self) -> float:
        """Files per second while auditors were ready."""
        return self.files / self.seconds if self.seconds else 0.0


def play(
    source: Path, state: Path, files: int, options: Sequence[str], kills: list[float]
) -> Played:
    """Runs the command until it ends by itself, killed at each of the shares before."""
    played = Played(files)
    for share in [*kills, 2.0]:
        before = logged(state)
        began = time.monotonic()
        process = _start(source, state, options)
        first_s: float | None = None
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            done = logged(state)
            if first_s is None and done > before:
                first_s = time.monotonic()
                played.start_s.append(first_s - began)
            tenth = f"{10 * done // files * 10}%"
            played.rss_mib[tenth] = max(played.rss_mib.get(tenth, 0.0), _rss_mib(process.pid))
            if done >= share * files:
                process.send_signal(signal.SIGKILL)
                process.wait()
                played.kills.append(logged(state))
        played.seconds += time.monotonic() - (first_s or began)
        played.left_over += _left_over(process.pid)
    played.said = (state / "scan.log").read_text().splitlines()[-1]
    _look(played, source, state)
    return played


def logged(state: Path) -> int:
    """Lines of the decision log."""
    file = state / "decisions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def decisions(state: Path) -> Iterator[Verdict]:
    """Everything on record."""
    with closing(Database(f"sqlite:///{state / 'loragate.sqlite3'}", 30)) as database:
        for one in stored_decisions(database, Span()):
            yield parse_verdict(one.payload)


def digest_of(verdict: Verdict) -> str:
    """Of the one adapter."""
    return verdict.decision.evidence.adapters[0].sha256


def _look(played: Played, source: Path, state: Path) -> None:
    digests: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for verdict in decisions(state):
        digests[digest_of(verdict)] += 1
        verdicts[verdict.decision.verdict.value] += 1
        concepts = verdict.decision.evidence.concepts
        stages["response" if any(one.stage == "response" for one in concepts) else "screen"] += 1
    places: set[str] = set()
    outcomes: Counter[str] = Counter()
    for folder in {part.parent for part in (state / "catalogue").glob("*/part-*.parquet")}:
        for batch in read_parts(folder):
            for row in batch.to_pylist():
                places.add(row["location"])
                outcomes[row["outcome"]] += 1
                if row["outcome"] == "refused":
                    played.poison[Path(row["location"]).name] = row["reason"]
    listed = {str(path) for path in source.rglob("*.safetensors")}
    played.decided = len(digests)
    played.twice = sum(count > 1 for count in digests.values())
    played.lost = len(listed - places)
    played.outcomes, played.verdicts = dict(outcomes), dict(verdicts)
    played.stages = dict(stages)


def _start(source: Path, state: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    with (state / "scan.log").open("w") as log:
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
        every = {driver, *driver.children(recursive=True)}
        for one in every:
            with suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total / 2**20


def _left_over(pid: int, limit_s: float = 60.0) -> int:
    began = time.monotonic()
    while (count := len(list(_of_ray(pid)))) and time.monotonic() - began < limit_s:
        time.sleep(LOOK_EVERY_S)
    return count
