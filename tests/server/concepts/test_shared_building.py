"""Gradients are made by several processes at once, and go on where one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loragate_server.concepts.gradients import build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.models import BaseModel
from loragate_server.progress import silent
from testkit.tiny_models import tiny_base
from testkit.waiting import at_most, eventually
from tests.server.concepts.test_gradients import PLAN, Counted

STRATA = len(PLAN.strata)
DONE = 3
"""Concepts that the other process makes before it hangs in the next."""
DIGEST = "1" * 64
BUILD = f"""
import sys
import time
from pathlib import Path

from loragate_server.concepts.building import dense
from loragate_server.concepts.gradients import build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.progress import silent
from testkit.tiny_models import tiny_base
from tests.server.concepts.test_gradients import PLAN

library, cache, hangs = map(Path, sys.argv[1:])
make, made = dense.of_rows, []

def of_rows(*arguments):
    if len(made) == {DONE * STRATA}:
        hangs.touch()
        time.sleep(3600)
    made.append(arguments)
    return make(*arguments)

dense.of_rows = of_rows
base = tiny_base("sd")
base.digest = "{DIGEST}"
build_gradients(ConceptLibrary.open(library), base, cache, silent, PLAN)
"""


@contextmanager
def another_process(library: ConceptLibrary, cache: Path, hangs: Path) -> Iterator[None]:
    """A process that hangs in its fourth concept inside the block, and is killed at its end."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", BUILD, library.folder, cache, hangs],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(hangs.exists, 60)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(at_most(30))


def gradients_in(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in cache.glob("gradients-*.safetensors")}


def _base() -> BaseModel:
    base = tiny_base("sd")
    base.digest = DIGEST
    return base


@pytest.mark.timeout(600)
def test_two_processes_share_the_work_and_a_killed_one_leaves_its_concept_to_the_other(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    cache, count = tmp_path / "cache", len(library.concepts)
    turns = Counted(_base())
    work = threading.Thread(
        target=build_gradients, args=(library, turns.base, cache, silent, PLAN, turns)
    )
    with another_process(library, cache, tmp_path / "hangs"):
        kept = gradients_in(cache)
        assert len(kept) == DONE
        work.start()
        assert eventually(lambda: len(gradients_in(cache)) == count - 1, 60)
        assert work.is_alive(), "the last concept is waited for"
    work.join(at_most(60))
    assert not work.is_alive()
    every = gradients_in(cache)
    assert len(every) == count
    assert kept.items() <= every.items(), "what was there has not been made again"
    # one turn is for the shapes; the pictures were all encoded before
    assert turns.count == 1 + STRATA * (count - DONE)
