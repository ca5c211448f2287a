"""Known uses in the database, on a connection that the caller has opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def files_key(sha256s: Iterable[str]) -> str:
    """Equal for the same files, in whatever order and at whatever strengths."""
    return hashlib.sha256("\n".join(sorted(sha256s)).encode()).hexdigest()
