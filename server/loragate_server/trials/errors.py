"""What goes wrong in a trial."""

from __future__ import annotations


class TrialError(Exception):
    """A trial cannot be held; the message says why and what to do."""
