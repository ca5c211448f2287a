"""Why relayed connections end, and who is told of it: free of heavy imports."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a connection ended; the label `cause` of the metric."""

    CLIENT = "client"
    """The client closed it, or went away."""
    UPSTREAM = "upstream"
    """The image server did."""
    REFUSED = "refused"
    """A message of the client must not pass."""
    NO_DECISION = "no_decision"
    """No decision could be had over a message, so it did not pass."""
    BROKEN = "broken"
    """A peer broke the protocol, or sent a message over the limit."""
    SLOW = "slow"
    """A peer took too long to send or to take a message, or answered no ping."""
    IDLE = "idle"
    """Nobody said anything for a long time."""
    STOPPING = "stopping"
    """The server stops."""
    FAILED = "failed"
    """A fault of this server."""


class RelayObserver:
    """Told of every connection, and does nothing about it: subclasses count. Must not block."""

    def relay_connections(self, extractor: str, count: int) -> None:
        """So many connections are open."""

    def relay_ended(self, extractor: str, cause: Cause) -> None:
        """A connection ended."""
