"""The shipped rules: valid, tested one by one, and about metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from loragate_server.catalogue.progress import Progress
from loragate_server.metrics.catalogue import follow_catalogue
from testkit.scaling import ALERTMANAGER, RULES, scale_expression, scale_rules, seconds
from tests.alerts.played import Played

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
RECORDED = {
    rule["record"]: rule
    for group in yaml.safe_load((RULES / "recording.yaml").read_text())["groups"]
    for rule in group["rules"]
}
OF_PROMETHEUS = {"up", "ALERTS"}
NOT_EVERYWHERE = {
    "loragate_checkpoint_behind_seconds",
    "loragate_device_behind_seconds",
    "loragate_device_missed_lines_total",
    "loragate_events_dead_letters",
    "loragate_events_oldest_seconds",
    "loragate_kernel_compilations_total",
    "loragate_reviews_open",
}
"""No series where the log has no tree, nobody is told of events, Triton does not run, or nobody
reviews; their families are there."""


def of_a_scan() -> set[str]:
    """What a scan of a catalogue exposes beside a server's metrics."""
    registry = CollectorRegistry()
    follow_catalogue(registry, lambda: Progress(0))
    return {sample.name for family in registry.collect() for sample in family.samples}


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="scripts/install_test_tools.sh installs promtool"
)


def run(*command: str) -> str:
    """What a program says.

    Raises:
        AssertionError: it is not content.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
@pytest.mark.needs("prometheus")
def test_promtool_finds_the_rules_valid() -> None:
    said = run("promtool", "check", "rules", *map(str, sorted(RULES.glob("*.yaml"))))
    assert said.count("SUCCESS") == 2


@needs_promtool
@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_not_before(file: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", str(file))


def cases() -> Iterator[dict[str, Any]]:
    """Every moment at which a test looks at an alert."""
    for file in CASES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            yield from test["alert_rule_test"]


def minutes(duration: str) -> float:
    return seconds(duration) / 60


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_quiet_first_and_then_firing(alert: str) -> None:
    looks = [case for case in cases() if case["alertname"] == alert]
    quiet = [minutes(case["eval_time"]) for case in looks if not case["exp_alerts"]]
    firing = [minutes(case["eval_time"]) for case in looks if case["exp_alerts"]]
    assert quiet
    assert firing
    assert min(quiet) < min(firing)
    for case in looks:
        for expected in case["exp_alerts"]:
            assert expected["exp_labels"].items() >= ALERTS[alert]["labels"].items()
            assert set(expected["exp_annotations"]) == set(ALERTS[alert]["annotations"])


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_whom_it_is_for_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert alert.startswith("Loragate")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["labels"]["team"] in ("content-safety", "sre")
    assert 10 < len(rule["annotations"]["summary"]) < 120
    assert len(rule["annotations"]["description"]) > 60
    assert rule["annotations"]["runbook_url"] == f"https://loragate.example/runbooks/{alert}"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook_that_begins_with_a_decision_tree(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n\n```text\n")
    tree = text.split("```")[1]
    assert tree.count("├─") + tree.count("└─") >= 2
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["What it means", "How to look", "Remedy", "What to capture"]
    assert f"({alert}.md)" in (RUNBOOKS / "README.md").read_text()
    for other in re.findall(r"\bLoragate\w+", text):
        assert other in ALERTS, f"{alert} sends its reader to {other}"
    labels = ALERTS[alert]["labels"]
    assert f"Severity {labels['severity']}, team {labels['team']}." in text


def test_no_runbook_is_about_an_alert_that_does_not_exist() -> None:
    assert {file.stem for file in RUNBOOKS.glob("Loragate*.md")} == set(ALERTS)


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_links_of_runbooks_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def named_metrics(expression: str) -> set[str]:
    """Metrics and recorded series that an expression names."""
    bare = re.sub(r"\{[^}]*\}", "", expression)
    names = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)
    return {name for name in names if name.startswith(("loragate_", "grpc_", "process_"))} | {
        name for name in names if ":" in name
    }


def exists(name: str, seen: set[str]) -> bool:
    return name in seen | set(RECORDED) | OF_PROMETHEUS | NOT_EVERYWHERE | of_a_scan()


def test_every_metric_of_a_rule_about_catalogues_is_one_that_a_scan_exposes() -> None:
    named = {name for rule in ALERTS.values() for name in named_metrics(rule["expr"])}
    about = {name for name in named if name.startswith("loragate_catalogue_")}
    assert about
    assert about <= of_a_scan()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.needs("prometheus")
def test_every_metric_of_a_rule_is_one_that_servers_or_sdk_expose(played: Played) -> None:
    for rule in [*ALERTS.values(), *RECORDED.values()]:
        for name in named_metrics(rule["expr"]):
            assert exists(name, played.metrics), f"{name} in {rule}"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.needs("prometheus")
def test_every_query_of_a_runbook_is_one_that_prometheus_answers(played: Played) -> None:
    assert played.runbook_queries > 60
    assert played.runbook_errors == []


@pytest.mark.parametrize("record", RECORDED)
def test_recorded_series_are_named_level_metric_operations(record: str) -> None:
    level, metric, operations = record.split(":")
    assert level.split("_")[0] in ("job", "replica")
    assert metric.startswith("loragate_")
    assert operations


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is missing")
@pytest.mark.needs("prometheus-alertmanager")
def test_the_example_for_alertmanager_is_valid_and_routes_by_team_and_severity() -> None:
    assert "SUCCESS" in run("amtool", "check-config", str(ALERTMANAGER))
    for team in ("content-safety", "sre"):
        for severity in ("page", "ticket"):
            chosen = run(
                *("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"),
                *(f"team={team}", f"severity={severity}", "alertname=LoragateAny"),
            )
            assert chosen.strip() == f"{team}-{severity}"


def test_the_example_for_alertmanager_names_alerts_that_exist() -> None:
    for name in re.findall(r"Loragate\w+", ALERTMANAGER.read_text()):
        assert name in ALERTS or name == "LoragateErrorBudgetBurn"


def test_scaling_changes_times_and_nothing_else() -> None:
    before = 'increase(loragate_x_total{a="[5m]"}[1h]) > 5 * 60 and x offset 1d'
    after = scale_expression(before, 100)
    assert "[36000ms]" in after
    assert "offset 864000ms" in after
    assert "> 5 * 60" in after
    shipped, shorter = (RULES / "alerts.yaml").read_text(), {}
    for group in yaml.safe_load(scale_rules(shipped, 100))["groups"]:
        shorter |= {rule["alert"]: rule for rule in group["rules"]}
    assert shorter.keys() == ALERTS.keys()
    for alert, rule in shorter.items():
        assert rule["labels"] == ALERTS[alert]["labels"]
        assert rule["annotations"] == ALERTS[alert]["annotations"]
        assert ("for" in rule) == ("for" in ALERTS[alert])
