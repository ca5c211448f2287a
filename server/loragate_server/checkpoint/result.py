"""How a checked request fared, and who is told: all that counting needs, free of heavy imports."""

from __future__ import annotations

from enum import StrEnum

NO_EXTRACTOR = "none"
"""Stands for the extractor, in metrics and logs, where the one asked for does not exist."""


class Result(StrEnum):
    """How a request fared; the label `outcome` of the metrics."""

    ALLOW_NO_ADAPTER = "allow_no_adapter"
    """It loads no adapter."""
    ALLOW = "allow"
    """Its adapters may be loaded."""
    DENY = "deny"
    """The verdict over its adapters forbids it."""
    REFUSED = "refused"
    """It must not pass, whatever its adapters are."""
    NO_DECISION = "no_decision"
    """No decision could be had, so it must not pass."""
    UNKNOWN_DENIED = "unknown_denied"
    """It changes something by a route that the extractor does not know, so it must not pass."""
    UNKNOWN_WARNED = "unknown_warned"
    """The same, and a setting lets it pass while somebody watches."""
    UNKNOWN_PASSED = "unknown_passed"
    """The same, and a setting lets it pass."""
    DRY_RUN_DENY = "dry_run_deny"
    """It passed, and would not have outside a dry run."""


class CheckObserver:
    """Told of every request, and does nothing about it: subclasses count. Must not block."""

    def intercepted(self, extractor: str, outcome: str, seconds: float) -> None:
        """A request was answered after `seconds`."""
