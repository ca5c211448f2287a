"""What all sections of the configuration share.

A room is given its section itself, not a copy; so a section knows no room and loads nothing heavy.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
)

MIB, GIB = 1 << 20, 1 << 30

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Closed, so that a misspelt limit cannot pass for a set one, and never changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_serializer("*", mode="wrap", when_used="json")
    def _in_order(self, value: Any, told: SerializerFunctionWrapHandler) -> Any:
        """Sets are shown in an order that two runs share."""
        return sorted(told(value)) if isinstance(value, frozenset) else told(value)
