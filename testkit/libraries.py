"""The library that ships with the server, read once for a process; an open library is immutable."""

from __future__ import annotations

from functools import cache

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import EMBEDDED_LIBRARY


@cache
def embedded_library() -> ConceptLibrary:
    """Reading it takes longer than most tests that want it."""
    return ConceptLibrary.open(EMBEDDED_LIBRARY)
