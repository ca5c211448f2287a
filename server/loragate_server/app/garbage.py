"""How often Python looks for objects that only hold each other, and among which."""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 20, 10)
"""Objects made until the youngest are looked through, and how often that is done before older ones
are. A question that waits makes thousands and lives for seconds: with Python's 700 and 10 it would
count among the old ones that are looked through all together, in the middle of another's answer."""


def settle() -> None:
    """Called when everything is loaded: models, library and modules stay, and are not looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
