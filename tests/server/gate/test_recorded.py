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
