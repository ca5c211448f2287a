"""What a concept that is added to a calibrated library costs, and whether the rates still hold.

`python -m benchmarks.audit.grown` after `train`. A real server with a copy of the embedded library
is asked about harmless test adapters while a concept is added; then all of them are judged with
the library that has grown.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.attacks.bench import EMBEDDED, Bench
from benchmarks.attacks.factors import read_file
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import where
from benchmarks.audit.promised import Seen, rate_rows, seen
from benchmarks.audit.train import FOLDER, file_of
from benchmarks.audit.zoo import entries
from benchmarks.report import write
from emoji_tiny.catalogue import split
from emoji_tiny.render import render
from loragate import AuditClient, Concept, Severity
from loragate_server.app.folders import served_library
from loragate_server.app.startup import serve_bases
from loragate_server.audit.uses import Member
from loragate_server.config.schema import Config
from loragate_server.testing import SHARED_CACHE, server_process

PICTURES = 12


@dataclass(frozen=True)
class Asked:
    """A question to the server.

    Attributes:
        began_s: since the concept was sent; negative before.
        took_s: until the answer was there.
    """

    name: str
    began_s: float
    took_s: float
    verdict: str


@dataclass(frozen=True)
class Beside:
    """What was asked before, beside and after the change.

    Attributes:
        took_s: until the concept was in force.
        quiet_s: the same of a second one, with nobody asking.
    """

    took_s: float
    quiet_s: float
    alone: list[Asked]
    during: list[Asked]
    after: list[Asked]


def pictures_of(char: str) -> list[bytes]:
    """Pictures that no cache has seen."""
    rng = random.Random(time.time_ns())
    made = []
    for _ in range(PICTURES):
        render(char, rng).save(data := BytesIO(), "PNG")
        made.append(data.getvalue())
    return made


def harmless_files(zoo: Path) -> list[tuple[str, Path]]:
    """The harmless test adapters that are there."""
    found = []
    for entry in entries():
        file = file_of(entry, zoo)
        if (entry.family, entry.split) == ("harmless", "test") and file.exists():
            found.append((entry.name, file))
    return found


class Watch:
    """Asks one question after the other, and knows how long each took."""

    def __init__(self, client: AuditClient, files: Sequence[tuple[str, Path]]) -> None:
        self._client = client
        self._files = files
        self._strengths: Iterator[float] = (1 - step / 1e4 for step in range(10**4))
        self.began_s = time.monotonic()
        self.asked: list[Asked] = []

    def round(self, stop: threading.Event | None = None) -> None:
        """Asks about every file once; with `stop`, again and again until it is set."""
        while True:
            strength = next(self._strengths)  # another one each round, so that nothing is cached
            for name, file in self._files:
                before = time.monotonic()
                found = self._client.audit(file.read_bytes(), strength=strength)
                took_s = time.monotonic() - before
                verdict = str(found.verdict).rsplit(".", 1)[-1]
                self.asked.append(Asked(name, before - self.began_s, took_s, verdict))
                if stop is not None and stop.is_set():
                    return
            if stop is None:
                return


def beside_audits(library: Path, state: Path, files: Sequence[tuple[str, Path]]) -> Beside:
    """Adds a concept to a server that is asked all the while."""
    settings = {"LORAGATE_LIBRARY": str(library)}
    with server_process(state, settings) as server, AuditClient(server.grpc) as client:
        watch = Watch(client, files)
        watch.round()
        alone = list(watch.asked)
        done = threading.Event()
        beside = threading.Thread(target=watch.round, args=(done,))
        watch.began_s, watch.asked = time.monotonic(), []
        beside.start()
        add(client, "added", split().train[300])
        took_s = time.monotonic() - watch.began_s
        done.set()
        beside.join()
        during, watch.asked = watch.asked, []
        watch.round()
        began_s = time.monotonic()
        add(client, "second", split().train[301])
        quiet_s = time.monotonic() - began_s
        return Beside(took_s, quiet_s, alone, during, watch.asked)


def add(client: AuditClient, name: str, char: str) -> None:
    """Adds a concept, which is in force when this returns."""
    concept = Concept(name, name, "thing", Severity.HIGH, prompts=(f"a picture of {name}",))
    client.concepts.create(concept, pictures_of(char), timeout=300.0)


def judged(library: Path, state: Path, files: Sequence[tuple[str, Path]]) -> list[Seen]:
    """All harmless adapters under the library that has grown and the default policy."""
    config = Config(state_dir=state, library=library, cache_dir=SHARED_CACHE)
    [one] = serve_bases(config, served_library(config))
    assert one.engine.materials.uncalibrated == ()
    bench = Bench(one.base, one.engine, Bench.load().policy)
    return [
        seen(name, bench.judge([Member.of(read_file(file, bench.base))])) for name, file in files
    ]


def main(
    zoo: Annotated[Path, typer.Option(help="Folder of trained adapters.")] = FOLDER,
    beside: Annotated[int, typer.Option(help="Adapters asked about beside the change.")] = 12,
) -> None:
    """Writes `benchmarks/results/grown.json` and `.md`."""
    torch.set_num_threads(1)
    files = harmless_files(zoo)
    with tempfile.TemporaryDirectory(prefix="loragate-grown-") as made:
        library, state = Path(made) / "library", Path(made) / "state"
        shutil.copytree(EMBEDDED / "concepts", library)
        state.mkdir()
        found = beside_audits(library, state, files[:beside])
        seen_all = judged(library, state, files)
    text = told(found, seen_all)
    write("grown", {**asdict(found), "rates": rate_rows(seen_all)}, text)


def told(found: Beside, every: Sequence[Seen]) -> str:
    """The result as text."""
    rows = [
        ("before", *_times(found.alone)),
        ("beside the change", *_times(found.during)),
        ("after", *_times(found.after)),
    ]
    head = ("audits", "asked", "median", "longest")
    rates = [
        (
            f"{row['promised']:g}",
            f"{row['blocked']} of {row['of']}",
            f"{row['accepted_from']} to {row['accepted_to']}",
            where(row["blocked"], row["accepted_from"], row["accepted_to"]),
        )
        for row in rate_rows(list(every))
    ]
    ended = sum(one.ended for one in every)
    return (
        "# A concept more in a calibrated library\n\n"
        f"A concept of {PICTURES} pictures was added to the embedded library of 64 concepts while "
        "the server was asked about harmless test adapters. It was in force and calibrated after "
        f"{found.took_s:.1f} s; a second one, with nobody asking, after {found.quiet_s:.1f} s.\n\n"
        f"{table(head, rows)}\n\n"
        f"With the library that has grown, {len(every)} harmless test adapters were judged by the "
        f"default policy; {ended} ended at the screen.\n\n"
        f"{table(('rate', 'harmless adapters at it', 'binomial 95 % allows', 'it is'), rates)}"
    )


def _times(asked: Sequence[Asked]) -> tuple[int, str, str]:
    times = sorted(one.took_s for one in asked)
    return len(times), f"{times[len(times) // 2]:.2f} s", f"{times[-1]:.2f} s"


if __name__ == "__main__":
    typer.run(main)
