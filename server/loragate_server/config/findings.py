"""The section `findings` of the configuration: what is told concept by concept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loragate_server.config.section import Section


class FindingsSection(Section):
    """Which findings an answer, its record and its line in the log hold one by one.

    The policy decides over all concepts before; told are always those that it acts on and those
    that were asked for by name. How many others there were, and the highest score among them, is
    told as well, and their numbers are in the record, packed.

    Attributes:
        most: findings told whatever they score, the highest ones.
        above_score: the score from which on all are told, in standard deviations above the bank.
    """

    most: Annotated[int, Field(ge=1, le=100_000)] = 20
    above_score: Annotated[float, Field(allow_inf_nan=False)] = 5.0
