"""What all sections of the configuration share.

A room is given its section itself, not a copy; so a section knows no room and loads nothing heavy.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB, GIB = 1 << 20, 1 << 30

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Closed, so that a misspelt limit cannot pass for a set one, and never changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
