"""What a server keeps of each audit ends: memory grows to a level that the settings say."""

from __future__ import annotations

import gc
import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from loragate_server.adapter.reference import AdapterReference
from loragate_server.gate.queue import Clocks
from loragate_server.gate.request import GateRequest
from loragate_server.intake.store import ContentStore
from loragate_server.recent import files_for

MOST_KEPT = 300
"""Bytes that an audit may leave behind for good: nothing, but memory is no exact measure.

A leak shows in every stretch of audits. What shows in some is a pool that breathes.
"""


def copy_of(data: bytes, number: int) -> bytes:
    """The same weights in another file."""
    size = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + size]) | {"__metadata__": {"copy": f"{number:04}"}}
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


async def test_an_audit_leaves_little_behind_when_the_cache_is_full(
    house: Callable[..., Any],
) -> None:
    here = house(verdict_cache_size=4)
    here.gate._on_record.lineage._remembered = 4
    for book in (
        here.gate._on_record.weights._seen,
        here.gate._intake._intake._weights._known,
        here.gate._intake._intake._store._proven,
        here.gate._intake._intake._store._used_unix_s,
    ):
        book._limit = 4

    async def ask(numbers: range) -> int:
        for number in numbers:
            reference = AdapterReference(inline_bytes=copy_of(here.files(0), number))
            await here.ask(GateRequest(adapters=(reference,)))
            for observed in (here.counts.answers, here.counts.held_bytes, here.counts.waits_s):
                del observed[:-1]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held = [await ask(range(start, start + 24)) for start in range(0, 96, 24)]
    finally:
        tracemalloc.stop()
    grown = [(after - before) / 24 for before, after in pairwise(held)]
    print("bytes kept of each audit:", *(round(one) for one in grown))
    assert min(grown) < MOST_KEPT


async def test_a_cached_verdict_holds_what_answers_hold_and_no_more(
    house: Callable[..., Any],
) -> None:
    here = house()
    verdict = await here.ask()
    [entry] = here.gate._cache._entries.values()
    evidence = entry.verdict.decision.evidence
    assert verdict.decision.evidence.adapters[0].sketches
    assert evidence.adapters[0].sketches == ()
    assert (evidence.layers, evidence.heat_map, evidence.concepts) == ((), None, ())
    assert entry.verdict.decision.findings == verdict.decision.findings
    assert len(here.gate._on_record.lineage._seen) == 1


def test_something_is_remembered_of_as_many_files_as_verdicts() -> None:
    assert [files_for(size) for size in (0, 500, 10**6)] == [64, 500, 16384]


def test_a_store_of_many_small_files_remembers_the_last_ones(tmp_path: Path) -> None:
    one = ContentStore(tmp_path, 1 << 30, remembered=5)
    for number in range(9):
        file = one.incoming()
        file.write(b"x")
        one.adopt(file, f"{number:064x}")
    assert len(one._used_unix_s) == 5
    assert len(one._proven) <= 5


def test_counting_what_is_stored_takes_no_more_memory_with_more_files(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        store = ContentStore(tmp_path / str(count), 1 << 30)
        for number in range(count):
            path = store.path_of(hashlib.sha256(str(number).encode()).hexdigest())
            path.parent.mkdir(exist_ok=True)
            path.touch()
        tracemalloc.start()
        try:
            store._evict(keep=tmp_path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(4000) < 2 * peak_bytes(500) + 20_000


def test_nobody_is_remembered_for_having_been_served_once() -> None:
    clocks = Clocks()
    for number in range(5000):
        clocks.charge(f"caller {number}", 1.0, 1.0)
    assert len(clocks._served) <= 1025
