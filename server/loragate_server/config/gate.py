"""The section `gate` of the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loragate_server.config.section import GIB, Positive, PositiveSeconds, Section


class GateSection(Section):
    """How much work may wait, and how many verdicts are remembered.

    Attributes:
        queue_limit: audits that may wait for the worker.
        byte_budget: adapter bytes that may be in flight.
        verdict_cache_size: 0 remembers nothing, and every question is audited.
        stuck_after_s: an audit without a sign of life for so long is given up.
    """

    queue_limit: Positive = 64
    byte_budget: Positive = 4 * GIB
    verdict_cache_size: Annotated[int, Field(ge=0)] = 10_000
    stuck_after_s: PositiveSeconds = 300.0
