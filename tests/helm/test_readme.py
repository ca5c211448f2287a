"""What the chart tells its operator: README.md, NOTES.txt, docs/kubernetes.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helm.conftest import CHART, ROOT, SCENARIOS, render, run_helm

pytestmark = pytest.mark.needs("helm")

GUIDE = ROOT / "docs" / "kubernetes.md"
NOTES_AS_OBJECT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  notes: {{ include (print $.Template.BasePath "/NOTES.txt") . | quote }}
"""


def test_the_readme_tells_of_every_scenario_what_its_file_tells() -> None:
    readme = (CHART / "README.md").read_text()
    for name, file in SCENARIOS.items():
        first = file.read_text().splitlines()[0].removeprefix("# ")
        assert f"| [{name}](ci/{file.name}) | {first} |" in readme


@pytest.fixture(scope="module")
def chart_with_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, with its notes as an object: `helm template` prints no notes."""
    copy = tmp_path_factory.mktemp("chart") / "loragate"
    shutil.copytree(CHART, copy)
    (copy / "templates" / "notes.yaml").write_text(NOTES_AS_OBJECT)
    return copy


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (
            "default",
            ["rollout status deployment/loragate", "dns:///loragate-headless.images:50051"],
        ),
        ("default", ["wait until the Secret loragate-tls has tls.crt, tls.key and ca.crt"]),
        ("default", ["NOTE: the embedded concept library is a demonstration"]),
        ("keda", ["rollout status statefulset/loragate", "has tls.crt and tls.key."]),
        ("console-oidc", ["https://loragate.example.com/console/"]),
        ("sidecar", ["get configmap loragate-sidecar", "patch deployment IMAGE-SERVER"]),
        ("pilot", ["acknowledge.pilotMode is set", "acknowledge.mutableImageTag is set"]),
    ],
)
def test_the_notes_say_what_to_do_next(
    scenario: str, says: list[str], chart_with_notes: Path
) -> None:
    found = render(SCENARIOS[scenario], chart=chart_with_notes).objects
    [notes] = [one["data"]["notes"] for one in found if one["metadata"]["name"] == "notes"]
    for words in says:
        assert words in notes
    assert ("acknowledge" in notes) == (scenario in ("pilot", "sidecar"))


def test_values_in_the_guide_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# values: .*?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for number, block in enumerate(blocks):
        (file := tmp_path / f"{number}.yaml").write_text(block)
        assert render(SCENARIOS["default"], file).objects


def test_a_chart_can_take_the_sidecar_into_its_own_pods(tmp_path: Path) -> None:
    """As a dependency, with the templates that it names in its own workload."""
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "loragate")
    (parent / "templates").mkdir()
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: images\nversion: 1.0.0\n")
    shutil.copy(SCENARIOS["sidecar"], tmp_path / "sidecar.yaml")
    values = {"loragate": yaml.safe_load(SCENARIOS["sidecar"].read_text()), "global": {"a": 1}}
    (parent / "values.yaml").write_text(yaml.safe_dump(values))
    [example] = re.findall(r"```yaml\n# template: .*?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (parent / "templates" / "pod.yaml").write_text(example)
    text = run_helm("template", "images", str(parent), "--kube-version", "1.33")
    [pod] = [
        found
        for found in yaml.safe_load_all(text)
        if found and found["kind"] == "Pod" and found["metadata"]["name"] == "image-server"
    ]
    [sidecar] = pod["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["image"].startswith("loragate@sha256:")
    mounts = {mount["name"] for mount in sidecar["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert pod["metadata"]["labels"] == {"loragate-sidecar": "images-loragate"}
