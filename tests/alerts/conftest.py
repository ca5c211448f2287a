"""The story is played once; the tests look at what came of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testkit.monitoring import missing_programs
from tests.alerts.dashboard import ask_every_panel
from tests.alerts.played import Played, answered, runbook_queries
from tests.alerts.story import go_wrong, stage, stay_healthy

HEALTHY_S = float(os.environ.get("LORAGATE_TEST_HEALTHY_S", "10"))


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    if missing := missing_programs():
        pytest.skip(f"missing: {', '.join(missing)}; scripts/install_test_tools.sh installs them")
    folder: Path = tmp_path_factory.mktemp("alerts")
    with stage(folder) as on:
        healthy = stay_healthy(on, HEALTHY_S)
        panels = ask_every_panel(on.metrics)
        names = {one["metric"]["__name__"] for one in on.metrics.query('{__name__=~".+"}')}
        queries = list(runbook_queries())
        refused = [query for query in queries if not answered(on.metrics, query)]
        seen = Played(healthy, panels, names, len(queries), refused)
        go_wrong(on)
        seen.fired, seen.heard = on.watch.fired, on.watch.heard
    return seen
