"""Every pod of every scenario meets the restricted Pod Security Standard, and more."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.helm.conftest import CASES, Object, Rendering, scenario_on

pytestmark = pytest.mark.needs("helm")

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def pods() -> Iterator[tuple[str, Object]]:
    """Every pod of every scenario, by a name for messages."""
    for case in CASES:
        for name, spec in scenario_on(*case).pod_specs():
            yield f"{case}: {name}", spec


def containers() -> Iterator[tuple[str, Object]]:
    """Every container of them."""
    for name, spec in pods():
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            yield f"{name}: {container['name']}", container


def test_there_are_pods_to_check() -> None:
    kinds = {name.split(": ")[1].split("/")[0] for name, _ in pods()}
    assert kinds == {"Deployment", "StatefulSet", "Job", "CronJob", "RayJob", "Pod"}
    names = {name.rsplit(": ", 1)[1] for name, _ in containers()}
    assert names >= {
        *("loragate", "loragate-library", "migrations", "readiness", "metrics", "grpc"),
        *("catalogue", "ray-head", "ray-worker"),
    }


def test_no_pod_runs_as_root_or_sees_the_node() -> None:
    for name, spec in pods():
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name


def test_no_pod_gets_a_token_for_the_kubernetes_api() -> None:
    for name, spec in pods():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
    for case in CASES:
        for account in scenario_on(*case).all("ServiceAccount"):
            assert account["automountServiceAccountToken"] is False


def test_no_container_can_gain_rights_or_write_to_its_image() -> None:
    for name, container in containers():
        assert container["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name


def test_every_container_has_requests_and_a_limit_of_memory() -> None:
    for name, container in containers():
        resources = container["resources"]
        assert set(resources["requests"]) >= {"cpu", "memory"}, name
        assert "memory" in resources["limits"], name


def test_only_volumes_of_restricted_pods_are_mounted_and_empty_folders_have_a_limit() -> None:
    for name, spec in pods():
        for volume in spec.get("volumes", ()):
            [kind] = set(volume) - {"name"}
            assert kind in RESTRICTED_VOLUMES, name
            assert kind != "emptyDir" or volume["emptyDir"]["sizeLimit"], f"{name}: {volume}"


def test_every_mount_has_its_volume_and_every_volume_its_mount() -> None:
    for case in CASES:
        rendering = scenario_on(*case)
        claims = {
            claim["metadata"]["name"]
            for workload in rendering.all("StatefulSet")
            for claim in workload["spec"].get("volumeClaimTemplates", ())
        }
        for name, spec in rendering.pod_specs():
            every = (*spec["containers"], *spec.get("initContainers", ()))
            mounted = {m["name"] for one in every for m in one.get("volumeMounts", ())}
            offered = [volume["name"] for volume in spec.get("volumes", ())]
            assert len(offered) == len(set(offered))
            assert mounted == {*offered, *(claims if "StatefulSet" in name else ())}, name


def test_images_are_named_by_digest_except_where_that_was_acknowledged() -> None:
    for name, container in containers():
        if "('pilot'" in name:
            assert container["image"] == "loragate:0.1.0"
        else:
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"]), name


def test_secrets_reach_containers_as_references_only() -> None:
    """No value of the chart is a secret, so that none lies in a release or in git."""
    for case in CASES:
        rendering = scenario_on(*case)
        assert not rendering.all("Secret")
        assert "stringData" not in rendering.text
    assert [
        variable["valueFrom"]["secretKeyRef"]
        for variable in scenario_on("keda", "1.33").server()["env"]
        if variable["name"] == "LORAGATE_DATABASE_URL"
    ] == [{"name": "loragate-database", "key": "uri"}]


def test_the_patch_for_a_sidecar_keeps_the_standard() -> None:
    rendering: Rendering = scenario_on("sidecar", "1.33")
    patch = yaml.safe_load(rendering.one("ConfigMap", "-sidecar")["data"]["patch.yaml"])
    [container] = patch["spec"]["template"]["spec"]["initContainers"]
    assert container["securityContext"] == rendering.server()["securityContext"]
