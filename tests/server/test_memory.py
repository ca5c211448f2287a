"""What is free goes back to the system while the server runs, and what was loaded stays."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from pathlib import Path

from loragate_server.app import memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def holes(count: int, size: int) -> list[ctypes.c_void_p]:
    """Small pieces of the C library's heap between large ones that were given back."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    large, small = [], []
    for _ in range(count):
        large.append(ctypes.c_void_p(libc.malloc(size)))
        ctypes.memset(large[-1], 1, size)
        small.append(ctypes.c_void_p(libc.malloc(600)))
    for one in large:
        libc.free(one)
    return small


async def test_free_memory_between_what_is_used_goes_back() -> None:
    kept = holes(2000, 100_000)
    before = resident_bytes()
    trimming = asyncio.create_task(memory.keep_trimmed(0.01))
    await asyncio.sleep(1.0)
    trimming.cancel()
    assert before - resident_bytes() > 100_000_000
    for one in kept:
        ctypes.CDLL(None).free(one)


def test_what_was_loaded_is_looked_at_no_more() -> None:
    thresholds = gc.get_threshold()
    try:
        memory.settle()
        assert gc.get_freeze_count() > 0
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
