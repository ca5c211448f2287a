"""What goes wrong in hours and days reaches the right people too."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from testkit.monitoring import missing_programs
from tests.alerts.long_story import be_neglected, leak_errors, long_stage, run_out_of_memory
from tests.alerts.watch import Watch

pytestmark = [pytest.mark.long, pytest.mark.needs("prometheus"), pytest.mark.timeout(400)]

RECEIVERS = {
    "ReviewsWaiting": "content-safety-ticket",
    "AuditsFailing": "sre-page",
    "ErrorBudgetBurn": "sre-page",
    "PolicyStale": "sre-page",
    "EngineDiffers": "sre-ticket",
    "ErrorBudgetBurnSlow": "sre-ticket",
    "InterceptionSeesNoAdapters": "sre-ticket",
    "Restarting": "sre-ticket",
}


@dataclass(frozen=True)
class Seen:
    """What one play of the long story showed.

    Attributes:
        watch: what fired, and who was told.
        leaked: what had fired before memory ran out, which is a fast fault.
    """

    watch: Watch
    leaked: set[str]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The long story is played once."""
    if missing := missing_programs():
        pytest.skip(f"missing: {', '.join(missing)}; scripts/install_test_tools.sh installs them")
    with long_stage(tmp_path_factory.mktemp("long")) as on:
        be_neglected(on)
        leak_errors(on)
        leaked = set(on.watch.fired)
        run_out_of_memory(on)
    return Seen(on.watch, leaked)


@pytest.mark.parametrize(("alert", "receiver"), RECEIVERS.items())
def test_a_slow_fault_reaches_the_right_people(seen: Seen, alert: str, receiver: str) -> None:
    assert f"Loragate{alert}" in seen.watch.fired
    assert seen.watch.heard.receivers(f"Loragate{alert}") == {receiver}


def test_a_slow_leak_of_errors_does_not_look_like_a_fast_one(seen: Seen) -> None:
    assert "LoragateErrorBudgetBurn" in seen.leaked
    assert "LoragateErrorBudgetBurnFast" not in seen.leaked
