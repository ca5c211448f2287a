"""Every scenario gives objects that Kubernetes and the operators take, on every version."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import kubernetes_validate
import pytest
from jsonschema import Draft7Validator

from tests.helm.conftest import (
    CASES,
    CHART,
    NEEDS_IMAGE_VOLUMES,
    NEEDS_OPERATORS,
    SCENARIOS,
    VERSIONS,
    Object,
    RefusedError,
    load_all,
    render,
    run_helm,
    scenario_on,
)

pytestmark = pytest.mark.needs("helm")

SCHEMAS = Path(__file__).parent / "schemas"
GOLDEN = Path(__file__).parent / "golden" / "default.yaml"
NO_DASHBOARD = {"monitoring": {"dashboard": {"enabled": False}}}
"""It has a test of its own, and would make every change of a panel one of the chart."""


@functools.cache
def custom_schema(kind: str) -> Draft7Validator:
    return Draft7Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))


@functools.cache
def problems_of(text: str, version: str) -> list[str]:
    """Cached, since many objects are the same in every scenario."""
    found = json.loads(text)
    if (SCHEMAS / f"{found['kind']}.json").exists():
        errors = custom_schema(found["kind"]).iter_errors(found)
        return [f"{error.json_path}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{list(error.path)}: {error.message}"]
    return []


def problems(found: Object, version: str) -> list[str]:
    """What is wrong with an object on a version of Kubernetes."""
    custom = (SCHEMAS / f"{found['kind']}.json").exists()
    return problems_of(json.dumps(found), "any" if custom else version)


@pytest.mark.parametrize(("scenario", "version"), CASES)
def test_every_object_is_valid(scenario: str, version: str) -> None:
    rendering = scenario_on(scenario, version)
    assert len(rendering.objects) >= 4
    names = [(found["kind"], found["metadata"]["name"]) for found in rendering.objects]
    assert len(set(names)) == len(names)
    for found in rendering.objects:
        assert problems(found, version) == [], found["kind"]
        assert len(found["metadata"]["name"]) <= 63
        assert found["metadata"]["namespace"] == "images"


def test_the_scenarios_use_every_template() -> None:
    """So that nothing in the chart goes unchecked."""
    used = {
        line.removeprefix("# Source: loragate/")
        for scenario in SCENARIOS
        for line in scenario_on(scenario, "1.33").text.splitlines()
        if line.startswith("# Source: ")
    }
    templates = {
        str(file.relative_to(CHART))
        for file in CHART.glob("templates/**/*.yaml")
        if file.name != "validate.yaml"
    }
    assert used == templates


def test_the_validators_can_refuse() -> None:
    service = next(iter(scenario_on("default", "1.33").all("Service")))
    misspelt = service | {"spec": service["spec"] | {"portz": []}}
    assert problems(misspelt, "1.33")
    monitor = scenario_on("default", "1.33").one("ServiceMonitor")
    assert problems(monitor | {"spec": monitor["spec"] | {"endpoint": []}}, "1.33")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_lint_finds_nothing(scenario: str) -> None:
    """Lint takes an old cluster without operators, and can be told of no other."""
    arguments = ("lint", "--strict", str(CHART), "--values", str(SCENARIOS[scenario]))
    if scenario not in NEEDS_OPERATORS | {NEEDS_IMAGE_VOLUMES, "sidecar"}:
        assert "1 chart(s) linted, 0 chart(s) failed" in run_helm(*arguments)
        return
    with pytest.raises(RefusedError) as refused:
        run_helm(*arguments)
    report = str(refused.value)
    assert report.count("[ERROR]") == 1
    assert "[WARNING]" not in report
    found = [line for line in report.splitlines() if line.startswith("  - ")]
    assert found
    for line in found:
        assert "which this cluster does not have" in line or "which Kubernetes v1.20" in line


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_cluster_without_operators_gets_none_of_their_objects(scenario: str) -> None:
    if scenario in NEEDS_OPERATORS:
        with pytest.raises(RefusedError, match="which this cluster does not have"):
            render(SCENARIOS[scenario], operators=())
    else:
        bare = render(SCENARIOS[scenario], operators=())
        groups = {found["apiVersion"].partition("/")[0] for found in bare.objects}
        assert groups <= {"v1", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"}


def test_what_needs_a_new_cluster_says_so() -> None:
    with pytest.raises(RefusedError, match=r"which Kubernetes v1\.29.* cannot; use 1\.33 or newer"):
        render(SCENARIOS[NEEDS_IMAGE_VOLUMES], version=VERSIONS[0])


def test_a_rendering_is_the_same_each_time() -> None:
    assert render(SCENARIOS["console-oidc"]).text == scenario_on("console-oidc", "1.33").text


def test_the_defaults_render_as_they_were_reviewed() -> None:
    """After a change that is meant: `make chart`, and look at the difference."""
    rendered = render(SCENARIOS["default"], values=NO_DASHBOARD, operators=()).text
    assert rendered == GOLDEN.read_text()


@pytest.mark.parametrize("scenario", ["default", "sidecar"])
def test_names_follow_the_release_and_fit(scenario: str) -> None:
    long = "a-release-with-a-name-of-fifty-three-letters-in-it-xx"
    text = run_helm(
        "template", long, str(CHART), "--kube-version", "1.33", "--values", str(SCENARIOS[scenario])
    )
    names = [found["metadata"]["name"] for found in load_all(text)]
    assert all(name.startswith("a-release-with") and len(name) <= 63 for name in names)
