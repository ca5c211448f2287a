"""What was measured of one adapter of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from loragate_server.audit.likeness import Profile
from loragate_server.audit.screening import Screening, Told


@dataclass(frozen=True)
class AdapterScores:
    """What was measured of one adapter of the calibration, at full strength.

    Attributes:
        screen: by concept, the screen's score.
        aim: the same, the aim; the same concepts in the same order.
        named: the same, what is heard under the name.
        bank: what is heard of the neutral concepts under theirs.
        profile: of its layers.
        response: by concept, the response stage's score where it looked.
        learned: concepts that it is known to have learned; empty for a harmless one.
    """

    sha256: str
    screen: Mapping[str, float]
    aim: Mapping[str, float]
    named: Mapping[str, Told]
    bank: tuple[Told, ...]
    profile: Profile
    response: Mapping[str, float]
    learned: tuple[str, ...] = ()

    def with_values(self, by_kind: Mapping[str, Mapping[str, Any]]) -> AdapterScores:
        """The same adapter with other "screen", "aim", "named" and "response" values."""
        return replace(
            self,
            screen=by_kind["screen"],
            aim=by_kind["aim"],
            named=by_kind["named"],
            response=by_kind["response"],
        )

    @property
    def screening(self) -> Screening:
        """As the entrance to the response stage wants it."""
        return Screening(
            tuple(self.screen.values()),
            tuple(self.aim.values()),
            self.profile,
            tuple(self.named.values()),
            self.bank,
            range(len(self.screen)),
        )
