"""Asks clients that have no service, but a folder of signed verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loragate import AuditClient, DeadlineExceeded, Unavailable
from loragate.reference import INLINE_LIMIT_BYTES
from loragate.signed import SIGNED_VERDICT

NOWHERE = "127.0.0.1:1"
"""No service is there."""

NO_SERVICE = (DeadlineExceeded, Unavailable)

WEIGHTS, OTHERS = b"weights", b"other weights"
LARGE = bytes(INLINE_LIMIT_BYTES)

Keep = Callable[..., str]


def is_accepted(client: AuditClient, adapters: Any = WEIGHTS, **options: Any) -> bool:
    """Without a service, what is not accepted is an error."""
    try:
        result = client.audit(adapters, **options)
    except NO_SERVICE:
        return False
    assert result.allowed
    assert result.reasons[0].code == SIGNED_VERDICT
    return True
