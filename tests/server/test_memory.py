"""What is free goes back to the system while the server runs, and what was loaded stays."""

from __future__ import annotations

import subprocess
import sys

from testkit.waiting import at_most

HOLES = """
import asyncio, ctypes, time
from pathlib import Path
from loragate_server.app import memory

COUNT, SIZE = 1000, 100_000
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

async def main():
    large, small = [], []
    for _ in range(COUNT):
        large.append(libc.malloc(SIZE))
        ctypes.memset(large[-1], 1, SIZE)
        small.append(libc.malloc(600))
    for one in large:
        libc.free(one)
    kept = resident()
    trimming = asyncio.create_task(memory.keep_trimmed(0.01))
    until = time.monotonic() + {limit_s}
    while kept - resident() < 0.8 * COUNT * SIZE and time.monotonic() < until:
        await asyncio.sleep(0.01)
    trimming.cancel()
    print(kept > COUNT * SIZE, kept - resident() >= 0.8 * COUNT * SIZE)

asyncio.run(main())
"""
"""Small pieces of the C library's heap stay between large ones that were given back."""

FROZEN = """
import gc
from loragate_server.app import memory

loaded = [[number] for number in range(100_000)]
memory.settle()
print(gc.get_freeze_count() > 100_000, len(gc.get_objects()) < 1000, gc.get_threshold())
"""


def said_by(program: str) -> str:
    """What a program prints in a process of its own, whose memory nobody else has been at."""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=at_most(30.0)
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_free_memory_between_what_is_used_goes_back() -> None:
    assert said_by(HOLES.replace("{limit_s}", str(at_most(5.0)))) == "True True"


def test_what_was_loaded_is_looked_at_no_more() -> None:
    assert said_by(FROZEN) == "True True (5000, 20, 10)"
