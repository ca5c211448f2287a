"""What harmless adapters lead one to expect of an adapter, and so which concepts are suspects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loragate_server.audit.promise import Promise
from loragate_server.audit.stages import Screened
from loragate_server.audit.standing import Stood
from loragate_server.audit.witnesses import NOT_STOOD, Witnesses


@dataclass(frozen=True)
class Expected:
    """What harmless adapters lead one to expect of the wanted concepts.

    Attributes:
        standings: by wanted concept how far it stands out; None where nothing says what to expect.
        suspects: rows of those that go on to the response stage, rising.
    """

    standings: Sequence[Stood | None]
    suspects: Sequence[int]

    @classmethod
    def of(
        cls,
        screened: Screened | None,
        promise: Promise | None,
        wanted: Sequence[int],
        calibrated: Mapping[int, int],
    ) -> Expected:
        """All concepts are suspects of which the calibration, if any, knows nothing."""
        every = range(len(wanted))
        if screened is None or promise is None:
            return cls([None] * len(wanted), every)
        known = [row for row in every if wanted[row] in calibrated]
        part = screened.screening.of(known, [calibrated[wanted[row]] for row in known])
        values = promise.entrance.standing.values(part)
        standings = dict(zip(known, values, strict=True))
        suspects = {*every} - {*known}
        suspects |= {known[place] for place in promise.entrance.suspects(part, values)}
        return cls(
            [standings.get(row) for row in every],
            sorted(suspects) if screened.found.complete else every,
        )


def heard_of(
    row: int, screened: Screened | None, response: float | None, expected: Expected
) -> Witnesses | None:
    """What speaks for one wanted concept; None where no screen was run."""
    if screened is None:
        return None
    screening, standing = screened.screening, expected.standings[row]
    stood = NOT_STOOD if standing is None else standing
    return Witnesses(screening.scores[row], screening.aims[row], response, stood)
