"""docs/operating.md and docs/api.md name everything that the server can say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from ruamel.yaml import YAML

from loragate_server.concepts.manifest import Manifest
from loragate_server.errors import ErrorReason
from loragate_server.metrics.metrics import Metrics
from loragate_server.rpc.access import METHODS
from loragate_server.rpc.errors import CODES

DOCS = Path(__file__).parents[2] / "docs"
OPERATING = (DOCS / "operating.md").read_text()
API = (DOCS / "api.md").read_text()


def rows(text: str) -> dict[str, list[str]]:
    """The rows of every table, by what stands in backticks in their first cell."""
    found = re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in found}


@pytest.mark.parametrize("reason", ErrorReason)
def test_every_reason_has_a_cause_and_a_remedy(reason: ErrorReason) -> None:
    cause, remedy = rows(OPERATING)[reason.value]
    assert len(cause) > 10
    assert len(remedy) > 5


def test_no_reason_is_made_up() -> None:
    table = OPERATING.partition("## Troubleshooting")[2]
    assert set(rows(table)) == {reason.value for reason in ErrorReason}


def series(metric: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return f"{metric.name}{suffix}"


def test_every_metric_of_ours_is_listed_and_no_other() -> None:
    served = {series(metric) for metric in Metrics().registry.collect()}
    ours = {name for name in served if name.startswith(("loragate_", "grpc_"))}
    listed = {name for name in rows(OPERATING) if name.startswith(("loragate_", "grpc_"))}
    assert listed == ours
    assert len(ours) > 15


def test_every_status_lists_its_reasons() -> None:
    listed = {
        (reason, status)
        for status, [reasons] in rows(API.partition("## Errors")[2]).items()
        for reason in re.findall(r"`(\w+)`", reasons)
    }
    assert listed == {(reason.value, code.name) for reason, code in CODES.items()}


def test_every_method_is_listed_with_its_permission() -> None:
    listed = {
        f"/loragate.v1.{name.replace('.', '/')}": cells[0].strip("`")
        for name, cells in rows(API.partition("## Answers")[0]).items()
    }
    assert listed == {method: permission.value for method, permission in METHODS.items()}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


def test_the_library_that_is_shown_is_one() -> None:
    section = OPERATING.partition("### A library of your own")[2]
    text = section.partition("```yaml\n")[2].partition("```")[0]
    manifest = Manifest.model_validate(YAML(typ="safe", pure=True).load(text))
    assert {entry.role for entry in manifest.concepts} == {"forbidden", "neutral"}
    assert {entry.hands is None for entry in manifest.concepts} == {True, False}
