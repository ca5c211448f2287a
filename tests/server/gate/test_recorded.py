"""What is counted as written down: each decision once, whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loragate_server.record.verdict import Verdict


async def test_a_decision_is_reported_as_written_down_once_and_not_from_the_cache(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    written: list[Verdict] = []
    here.counts.recorded = written.append
    here.engine.hold()
    asked = [here.ask() for _ in range(3)]
    await until(lambda: here.counts.shared == 2)
    here.engine.let_go()
    answers = await asyncio.gather(*asked)
    again = await here.ask()
    assert again.cached
    assert len(here.counts.answers) == 4
    assert [verdict.decision_id for verdict in written] == [answers[0].decision_id]


async def test_a_block_counts_from_the_moment_it_is_written_even_if_its_caller_has_gone(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.score = 9.0
    with here.recorder.log._lock:  # as a disk does that takes long to write a line
        asked = here.ask()
        await until(lambda: here.engine.ended == 1)
        await until(lambda: here.gate._pipeline._record_pool._work_queue.qsize() == 0)
        await asyncio.sleep(0.1)
        asked.cancel()
        await asyncio.wait([asked])
    await until(lambda: here.recorded() == 1)
    # The table is not followed here, so whoever asks next sees what was learnt at once.
    await until(lambda: len(here.known.alone()) == 1)
