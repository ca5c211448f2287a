"""`RecentFiles`: what is known of the files that were seen last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

REMEMBERED = 16_384
"""Files of which something is remembered at most: sketches take 4 KiB each, or 8, all else less."""

FEWEST_REMEMBERED = 64
"""However few verdicts are cached: what was just recorded is needed when it is ruled out."""

_Value = TypeVar("_Value")


def files_for(cached_verdicts: int) -> int:
    """Of how many files something is worth remembering beside so many cached verdicts."""
    return min(REMEMBERED, max(FEWEST_REMEMBERED, cached_verdicts))


class RecentFiles(Generic[_Value]):
    """A mapping by digest that forgets what was set longest ago when there is too much.

    An entry takes some 200 bytes and its value's; books of the same files share the digest of each.
    Thread-safe.

    Args:
        limit: how many files are remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __setitem__(self, sha256: str, value: _Value) -> None:
        with self._lock:
            self._entries[sha256] = value
            self._entries.move_to_end(sha256)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def get(self, sha256: str) -> _Value | None:
        """What is known of the file with this digest."""
        return self._entries.get(sha256)

    def forget(self, sha256: str) -> None:
        """Drops it, where it is known."""
        with self._lock:
            self._entries.pop(sha256, None)
