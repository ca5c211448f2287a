"""Names for decisions."""

from __future__ import annotations

import secrets
from datetime import datetime


def new_decision_id(now: datetime) -> str:
    """A UUID of version 7 (RFC 9562) in 32 hexadecimal digits: sortable by time, not guessable."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    value = (
        (milliseconds << 80)
        | (0x7 << 76)
        | (secrets.randbits(12) << 64)
        | (0b10 << 62)
        | secrets.randbits(62)
    )
    return f"{value:032x}"
