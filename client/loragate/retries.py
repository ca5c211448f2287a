"""How often a client asks again by itself, where its user sets that."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts of one call, and the pauses between them.

    It says how often, not when: a call is made again only after an answer by which nothing was
    decided and the service may have room or be there later, and only where asking twice does no
    harm. Creating and deleting concepts is never repeated. All attempts share the call's timeout;
    a pause that the service asks for is kept where it is longer.

    Attributes:
        attempts: in all, 1 to 20; 1 never asks again.
        first_pause: seconds before the second attempt, spread by 20 % either way.
        longest_pause: seconds.
        factor: by which each pause is longer than the one before.

    Raises:
        ValueError: a number that makes no sense.
    """

    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 5.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ValueError(f"attempts is 1 to {MOST_ATTEMPTS}, not {self.attempts!r}.")
        for name in ("first_pause", "longest_pause"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a positive number of seconds, not {value!r}.")
        if self.longest_pause < self.first_pause:
            raise ValueError(
                f"longest_pause ({self.longest_pause!r}) is shorter than first_pause "
                f"({self.first_pause!r})."
            )
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"factor is 1 or more, not {self.factor!r}.")
