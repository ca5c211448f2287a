"""Values that contradict each other are refused, with a sentence that names cause and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.conftest import CHART, RefusedError, Rendering, Values, run_helm

pytestmark = pytest.mark.needs("helm")

CONTRADICTIONS = yaml.safe_load(Path(__file__).with_name("contradictions.yaml").read_text())


def sentences(refused: RefusedError) -> list[str]:
    """What the chart said, one problem a line."""
    return [line[4:] for line in str(refused).splitlines() if line.startswith("  - ")]


@pytest.mark.parametrize(
    "case", CONTRADICTIONS, ids=[one["refused"][:60] for one in CONTRADICTIONS]
)
def test_a_contradiction_is_refused_with_one_sentence(
    case: dict[str, Any], changed: Callable[..., Rendering]
) -> None:
    cluster: dict[str, Any] = {"operators": ()} if "operators" in case else {}
    cluster |= {"version": case["version"]} if "version" in case else {}
    with pytest.raises(RefusedError) as refused:
        changed(case["values"], **cluster)
    assert sentences(refused.value) == [case["refused"]]
    assert re.search(r"; [^;]+\.$", case["refused"]), "a remedy follows the cause"


def test_every_sentence_of_the_chart_is_tested() -> None:
    written = [
        line
        for file in sorted(CHART.glob("templates/_problems_*.tpl"))
        for line in re.sub(r"\{\{/\*.*?\*/\}\}", "", file.read_text(), flags=re.DOTALL).splitlines()
        if line.strip() and not re.match(r"\s*(\{\{-|\(dict|\"|\}\})", line)
    ]
    patterns = [
        re.compile(re.sub(r"\\\{\\\{.*?\\\}\\\}", ".+", re.escape(line.strip())))
        for line in written
    ]
    untested = [
        pattern.pattern
        for pattern in patterns
        if not any(pattern.fullmatch(case["refused"]) for case in CONTRADICTIONS)
    ]
    assert len(patterns) >= 50
    assert untested == []


def test_all_contradictions_are_told_at_once(changed: Callable[..., Rendering]) -> None:
    with pytest.raises(RefusedError) as refused:
        changed({"image": {"digest": ""}, "tls": {"enabled": False}, "replicaCount": 2})
    assert len(sentences(refused.value)) == 4


def test_without_any_value_only_the_image_is_missing() -> None:
    with pytest.raises(RefusedError) as refused:
        run_helm("template", str(CHART), "--kube-version", "1.33")
    assert [line[:32] for line in sentences(refused.value)] == ["image has neither digest nor tag"]


@pytest.mark.parametrize(
    ("acknowledgement", "values"),
    [
        ("mutableImageTag", {"image": {"digest": "", "tag": "0.1.0"}}),
        ("insecureOffLoopback", {"tls": {"enabled": False}}),
        ("decisionsLostWithPod", {"persistence": {"enabled": False}}),
        ("pilotMode", {"policy": {"document": {"version": 1, "mode": "pilot", "defaults": {}}}}),
        ("dryRun", {"config": {"intercept": {"dry_run": True}}}),
        ("reviewPasses", {"config": {"intercept": {"on_review": "allow"}}}),
    ],
)
def test_an_acknowledgement_permits_what_it_names_and_nothing_else(
    acknowledgement: str, values: Values, changed: Callable[..., Rendering]
) -> None:
    assert changed({**values, "acknowledge": {acknowledgement: True}}).objects
    schema = json.loads((CHART / "values.schema.json").read_text())
    others = dict.fromkeys(schema["properties"]["acknowledge"]["properties"], True)
    with pytest.raises(RefusedError, match=f"acknowledge.{acknowledgement}: true"):
        changed({**values, "acknowledge": others | {acknowledgement: False}})
