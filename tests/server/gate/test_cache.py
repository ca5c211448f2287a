"""The verdict cache by itself, with clocks that the test sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from loragate_server.adapter.reference import Strength
from loragate_server.gate.cache import VerdictCache
from loragate_server.gate.key import AdapterKey, VerdictKey
from loragate_server.gate.observer import GateObserver

KEY = VerdictKey((AdapterKey("a", "", Strength()),), "tiny", "b", "c", "d", (), False)


@pytest.mark.parametrize(
    ("wall_s", "steady_s", "lives"),
    [(9, 9, True), (10, 9, False), (9, 10, False), (-3600, 9, True), (-3600, 10, False)],
)
async def test_a_verdict_lives_no_longer_than_either_clock_says(
    house: Callable[..., Any], wall_s: float, steady_s: float, lives: bool
) -> None:
    verdict = await house().ask()
    verdict = dataclasses.replace(verdict, expires_at=verdict.decided_at + timedelta(seconds=10))
    wall, steady = [verdict.decided_at], [100.0]
    cache = VerdictCache(4, GateObserver(), now=lambda: wall[0], monotonic=lambda: steady[0])
    cache.put(KEY, verdict)
    wall[0] += timedelta(seconds=wall_s)
    steady[0] += steady_s
    assert (cache.get(KEY) is not None) == lives
    assert len(cache) == lives


async def test_a_verdict_that_has_expired_is_not_put_in(house: Callable[..., Any]) -> None:
    verdict = await house().ask()
    cache = VerdictCache(4, GateObserver(), now=lambda: verdict.expires_at)
    cache.put(KEY, verdict)
    assert len(cache) == 0


def test_another_engine_asks_anew() -> None:
    assert dataclasses.replace(KEY, engine_version="0") != KEY
