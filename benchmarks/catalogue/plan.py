"""A million adapters against a thousand concepts, on paper, from what was measured here.

Everything that is assumed and not measured is a constant with its reason; docs/catalogue.md says
what follows from other assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.catalogue.found import Found
from benchmarks.catalogue.played import Played

ADAPTERS, CONCEPTS = 1e6, 1e3
MEASURED_CONCEPTS = 48
"""Of the shipped library, with the neutral bank."""
SUSPECTS = 0.02
"""Share of a catalogue that goes to the response stage. Not measured on a real one."""
CORE_HOUR = 0.04
"""Price of a core for an hour, a machine with memory included, in dollars."""
HOURS = 24.0


def plan(
    played: Played, found: Found, together: Mapping[str, float], auditors: int
) -> dict[str, float]:
    """Core hours, machines and money for the embedded base model on cores as those used here."""
    screen_s = together["clear_32_together_ms"] / 1000
    response_s = together["suspect_4_together_ms"] / 1000
    # of a file the reading, converting, deciding and recording depend on no concept
    share = found.stages.get("response", 0) / max(1, found.digests)
    stages_s = screen_s + share * response_s
    rest_s = max(0.0, _seconds_a_file(played) * auditors - stages_s)
    screening_s = ADAPTERS * screen_s * CONCEPTS / MEASURED_CONCEPTS
    suspects_s = ADAPTERS * SUSPECTS * response_s
    hours = (ADAPTERS * rest_s + screening_s + suspects_s) / 3600
    return {
        "core_hours": hours,
        "core_hours_screen": screening_s / 3600,
        "core_hours_response": suspects_s / 3600,
        "core_hours_rest": ADAPTERS * rest_s / 3600,
        "cores_for_one_day": hours / HOURS,
        "machines_of_16_cores_for_one_day": hours / HOURS / 16,
        "dollars": hours * CORE_HOUR,
    }


def _seconds_a_file(played: Played) -> float:
    """While all auditors are at work."""
    return played.seconds / max(1, played.files)
