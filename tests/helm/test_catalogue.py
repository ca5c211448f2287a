"""Scans of catalogues on a cluster: who holds what, who reaches whom, and what begins again."""

from __future__ import annotations

import functools

import kubernetes_validate
import pytest

from tests.helm.conftest import SCENARIOS, VERSIONS, Object, Rendering, render, scenario_on

pytestmark = pytest.mark.needs("helm")

SCAN = ["catalogue", "scan", "/srv/adapters"]
SECRETS = {"loragate-devices", "loragate-events", "loragate-signing", "loragate-tls"}
"""Volumes of the service whose files are keys."""


@functools.cache
def once(source: str = "/srv/adapters", threads: int = 2) -> Rendering:
    """One scan without a schedule."""
    values = {"catalogue": {"schedule": "", "source": source}, "config": {"threads": threads}}
    return render(SCENARIOS["catalogue-job"], values=values)


def ray_pods(version: str = "1.33") -> tuple[Object, Object]:
    """The pods of head and workers."""
    cluster = scenario_on("catalogue-ray", version).one("RayJob", "-catalogue")["spec"]
    cluster = cluster["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]


def test_a_scan_by_schedule_never_runs_twice_at_once() -> None:
    found = scenario_on("catalogue-job", "1.33").one("CronJob", "-scan")
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    [container] = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == SCAN
    assert "--retry" in container["args"]
    assert container["args"][container["args"].index("--http") + 1] == "0.0.0.0:9464"


def test_a_scan_without_a_schedule_is_a_job_that_another_configuration_replaces() -> None:
    [first] = once().all("Job")
    [second] = once("/srv/adapters/new").all("Job")
    [third] = once(threads=3).all("Job")
    names = {one["metadata"]["name"] for one in (first, second, third)}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


def test_refusals_are_a_result_and_evictions_are_no_failure() -> None:
    [job] = once().all("Job")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [1, 2]


def test_the_scan_keeps_log_and_results_on_a_volume_of_its_own() -> None:
    for rendering in (once(), scenario_on("catalogue-ray", "1.33")):
        claim = rendering.one("PersistentVolumeClaim", "-catalogue")
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        holders = [
            name
            for name, spec in rendering.pod_specs()
            for volume in spec.get("volumes", ())
            if volume.get("persistentVolumeClaim", {}).get("claimName") == "loragate-catalogue"
        ]
        assert len(holders) == 1


def test_what_opens_files_of_strangers_holds_no_password_token_or_key() -> None:
    head, workers = ray_pods()
    assert [one["name"] for one in workers["containers"][0]["env"]] == ["HOME", "RAY_TMPDIR"]
    kinds = {kind for volume in workers["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"emptyDir"}
    names = {one["name"] for one in head["containers"][0]["env"]}
    assert {"LORAGATE_CONFIG", "LORAGATE_DATABASE_URL"} <= names


def test_the_secrets_of_a_service_are_with_the_head_and_no_worker() -> None:
    rendering = render(SCENARIOS["ha-postgresql"], SCENARIOS["catalogue-ray"])
    cluster = rendering.one("RayJob", "-catalogue")["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    head, worker = (
        {one["name"] for one in pod["template"]["spec"]["volumes"]} & SECRETS
        for pod in (cluster["headGroupSpec"], workers)
    )
    assert head == SECRETS
    assert worker == set()


def test_head_and_workers_have_shared_memory_and_one_image() -> None:
    images = set()
    for spec in ray_pods():
        [container] = spec["containers"]
        images.add(container["image"])
        assert {"name": "loragate-shared-memory", "mountPath": "/dev/shm"} in container[
            "volumeMounts"
        ]
    assert images == {f"loragate-ray@sha256:{'2' * 64}"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_of_a_ray_cluster_are_valid(version: str) -> None:
    for spec in ray_pods(version):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_cluster_is_reached_by_its_own_pods_prometheus_and_the_operator_alone() -> None:
    policy = scenario_on("catalogue-ray", "1.33").one("NetworkPolicy", "-catalogue")["spec"]
    own = {"podSelector": policy["podSelector"]}
    metrics, jobs, inside = policy["ingress"]
    assert [port["port"] for port in metrics["ports"]] == ["http-loragate"]
    assert [port["port"] for port in jobs["ports"]] == [8265]
    assert "kuberay-operator" in str(jobs["from"])
    assert inside == {"from": [own]}
    reached = [port["port"] for rule in policy["egress"] for port in rule.get("ports", ())]
    assert reached == [53, 53, 5432, 443]
    assert {"to": [own]} in policy["egress"]


def test_a_scan_of_a_volume_reaches_nothing_but_names() -> None:
    policy = scenario_on("catalogue-job", "1.33").one("NetworkPolicy", "-catalogue")["spec"]
    assert len(policy["ingress"]) == 1
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53]


def test_a_scan_that_is_traced_reaches_the_collector() -> None:
    rendering = render(SCENARIOS["console-oidc"], SCENARIOS["catalogue-job"])
    policy = rendering.one("NetworkPolicy", "-catalogue")["spec"]
    [collector] = [rule for rule in policy["egress"] if "4317" in str(rule)]
    assert "observability" in str(collector["to"])


def test_prometheus_takes_the_numbers_of_a_scan_for_no_servers() -> None:
    monitor = scenario_on("catalogue-job", "1.33").one("PodMonitor", "-catalogue")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "loragate-catalogue"} in endpoint["relabelings"]
    [kept] = endpoint["metricRelabelings"]
    assert kept["action"] == "keep"
    assert kept["regex"].startswith("loragate_catalogue_.+|")


def test_without_the_value_there_is_nothing_of_it() -> None:
    assert "catalogue" not in {
        one["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in scenario_on("default", "1.33").objects
    }
