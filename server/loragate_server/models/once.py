"""What is told of a base model once, and remembered as long as it lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from loragate_server.models.base import BaseModel

Told = TypeVar("Told")


def once_per_base(tell: Callable[[BaseModel], Told]) -> Callable[[BaseModel], Told]:
    """Calls `tell` once for each base model, of which no audit changes anything.

    What it returns is shared between threads: it has to be something that nobody changes.
    """
    told: WeakKeyDictionary[BaseModel, Told] = WeakKeyDictionary()

    @wraps(tell)
    def of(base: BaseModel) -> Told:
        if (found := told.get(base)) is None:
            # Two threads may both tell it the first time; they say the same.
            found = told[base] = tell(base)
        return found

    return of
