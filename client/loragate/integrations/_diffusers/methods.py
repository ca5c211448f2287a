"""Puts stand-ins in the place of methods of single objects, and takes them away again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any


class Methods:
    """The stand-ins of one guard. Each gets the original as its first argument."""

    def __init__(self) -> None:
        self._put: list[tuple[Any, str, Any, Any]] = []

    def put(self, owner: Any, name: str, stand_in: Callable[..., Any]) -> None:
        """Replaces a method of this object alone; does nothing where it has none."""
        original = getattr(owner, name, None)
        if original is None:
            return
        installed = update_wrapper(partial(stand_in, original), original)
        self._put.append((owner, name, installed, vars(owner).get(name)))
        setattr(owner, name, installed)

    def take_back(self) -> None:
        """Gives the objects their methods back. May be called twice.

        Raises:
            RuntimeError: somebody else has replaced one since.
        """
        for owner, name, installed, _ in self._put:
            if vars(owner).get(name) is not installed:
                raise RuntimeError("Release guards in the reverse order of their making.")
        for owner, name, _, before in reversed(self._put):
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        self._put.clear()
