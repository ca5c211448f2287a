"""Which cases of a test run daily, and which in the long lane alone.

Properties are tried on the same cases every day, so that what fails today is what was changed
today. The long lane looks for new ones: `make test-all`, or `--hypothesis-profile searching`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from xdist.scheduler import LoadFileScheduling

LONGEST_FIRST = (
    "server/catalogue/test_watch.py",
    "e2e/test_trust.py",
    "server/audit/test_company.py",
    "server/catalogue/test_scan.py",
    "server/audit/test_loader_games.py",
    "server/audit/test_metamorphic.py",
    "server/catalogue/test_rescan.py",
    "client/test_required_signature.py",
    "client/test_scan.py",
    "client/test_scan_kept.py",
    "server/test_cli_calibrate.py",
    "server/test_cli_trials.py",
    "server/test_startup.py",
    "e2e/test_kills.py",
    "e2e/test_readiness.py",
    "e2e/test_console_looks.py",
    "e2e/test_console.py",
    "server/intercept/test_growth.py",
    "benchmarks/test_kernel_results.py",
    "helm/test_in_a_pod.py",
    "e2e/test_outages.py",
    "e2e/test_drain.py",
    "e2e/test_replicas.py",
    "e2e/test_envoy.py",
    "e2e/test_nginx.py",
    "e2e/test_haproxy.py",
    "e2e/test_image_server.py",
    "e2e/test_traces.py",
    "e2e/test_stuck.py",
    "server/test_cli_serve.py",
    "server/audit/test_backends.py",
    "server/test_extras.py",
    "server/test_doors.py",
    "kernels/test_warm_up.py",
)
"""Files of tests that take longest. They begin first, so that no process is left with one of them
when the others have ended; what `--durations` shows puts them here."""


ONE_CLUSTER = ("test_watch.py", "test_scan.py", "test_rescan.py")
"""Files of `server/catalogue` that want a cluster of Ray. In one process they share it; three of
them side by side took most of two cores for minutes."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """What a file sets up its tests share, and so do the files that want one cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        folder, _, name = file.rpartition("/")
        return folder if folder.endswith("server/catalogue") and name in ONE_CLUSTER else file


def try_the_same_properties_daily() -> None:
    """Sets up the profiles of Hypothesis. How long a case takes says nothing on a busy machine.

    What else a failing case could be is not looked for: it takes hours where a case writes files.
    """
    calm: dict[str, Any] = {
        "deadline": None,
        "suppress_health_check": [HealthCheck.too_slow],
        "phases": [phase for phase in Phase if phase is not Phase.explain],
    }
    settings.register_profile("daily", derandomize=True, **calm)
    settings.register_profile("searching", derandomize=False, **calm)
    settings.load_profile("daily")


def examples(daily: int, searching: int) -> int:
    """How often a property is tried: so often by `make test`, and so often in the long lane."""
    return searching if settings.get_current_profile_name() == "searching" else daily


def begin_with_the_longest(items: list[pytest.Item], tests: Path) -> None:
    """Sorts collected tests so; a file's own order stays."""
    order = {tests / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    if gone := [str(path) for path in order if not path.exists()]:
        raise pytest.UsageError(f"among the longest files are some that do not exist: {gone}")
    items.sort(key=lambda item: order.get(item.path, len(order)))


def daily(*cases: Any, of: Iterable[Any]) -> list[Any]:
    """Parameters for every case; `make test` runs these ones, `make test-all` the others too."""
    every = list(of)
    if unknown := [case for case in cases if case not in every]:
        raise ValueError(f"there is no case {unknown}")
    return [
        one if one in cases else pytest.param(*_values(one), marks=pytest.mark.long)
        for one in every
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
