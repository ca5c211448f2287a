"""The dashboard: as its code makes it, complete, and answered by a real Prometheus."""

from __future__ import annotations

import json
import re

import pytest

from scripts.dashboard.build import render
from tests.alerts.dashboard import FILE, panels
from tests.alerts.played import Played
from tests.alerts.test_rules import ALERTS

MAY_BE_EMPTY = {
    "Files of the catalogue": "no scan runs",
    "Files done, by outcome": "no scan runs",
    "Since a file was done": "no scan runs",
    "Response stage": "no scan runs",
    "Looks at the source": "no scan runs",
    "Certificate, time left": "the replica has no TLS",
    "Age of the oldest event that waits": "nobody is told",
    "Attempts at which events were not taken, 1 h": "nobody is told",
    "Events that were given up": "nobody is told",
    "Kernels compiled at run time, 1 h": "the reference kernels are not compiled",
    "Reviews that wait": "there is no console",
}


def test_the_committed_dashboard_is_what_its_code_makes() -> None:
    assert FILE.read_text() == render(), "run: python -m scripts.dashboard.build"


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel: dict) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for link in panel.get("links", ()):
        assert link["url"].rsplit("/", 1)[1] in ALERTS


def test_every_alert_is_linked_from_a_panel() -> None:
    linked = {link["title"] for panel in panels() for link in panel.get("links", ())}
    assert linked == set(ALERTS)


def test_panels_do_not_overlap_and_fit_the_width() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(FILE.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_data_source_namespace_job_and_replica_can_be_chosen() -> None:
    variables = json.loads(FILE.read_text())["templating"]["list"]
    assert [one["name"] for one in variables] == ["datasource", "namespace", "job", "instance"]
    text = FILE.read_text()
    used = set(re.findall(r"\$(\w+)", text)) | set(re.findall(r"\$\{(\w+)\}", text))
    assert used <= {"datasource", "namespace", "job", "instance", "__rate_interval", "__all"}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.needs("prometheus")
def test_prometheus_answers_every_panel_and_has_data_where_it_must(played: Played) -> None:
    assert played.panels.errors == {}
    assert len(played.panels.series) >= 45
    empty = {title for (title, _), series in played.panels.series.items() if not series}
    assert empty <= set(MAY_BE_EMPTY)
