"""Objects that have to fit together do: selectors, ports, volumes, doors in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.helm.conftest import CASES, CHART, Object, Rendering, scenario_on

pytestmark = pytest.mark.needs("helm")

SHARED = [case for case in CASES if case[0] != "sidecar" and case[1] == "1.33"]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def server_labels(rendering: Rendering) -> dict[str, str]:
    labels: dict[str, str] = rendering.workload()["spec"]["template"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("case", SHARED, ids="{0[0]}".format)
def test_services_find_the_server_and_only_it(case: tuple[str, str]) -> None:
    rendering = scenario_on(*case)
    ports = {port["name"] for port in rendering.server()["ports"]}
    for service in rendering.all("Service"):
        selector = service["spec"]["selector"]
        assert selects(selector, server_labels(rendering))
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        for pod in rendering.all("Pod"):
            assert not selects(selector, pod["metadata"]["labels"])


@pytest.mark.parametrize("case", SHARED, ids="{0[0]}".format)
def test_one_service_is_scraped(case: tuple[str, str]) -> None:
    rendering = scenario_on(*case)
    for monitor in rendering.all("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        [service] = [
            s for s in rendering.all("Service") if selects(selector, s["metadata"]["labels"])
        ]
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "loragate"


def test_the_http_port_never_leaves_the_cluster() -> None:
    services = scenario_on("cert-manager", "1.33").all("Service")
    outside = [one for one in services if one["spec"]["type"] == "LoadBalancer"]
    assert [[port["name"] for port in one["spec"]["ports"]] for one in outside] == [["grpc"]]
    assert {one["metadata"]["name"] for one in services} == {
        "loragate",
        "loragate-headless",
        "loragate-http",
    }


def test_proxies_reach_the_relays_by_a_port_of_their_own() -> None:
    rendering = scenario_on("interception", "1.33")
    assert {"name": "relay-9470", "containerPort": 9470} in rendering.server()["ports"]
    [service] = [one for one in rendering.all("Service") if one["spec"].get("clusterIP") != "None"]
    [port] = [one for one in service["spec"]["ports"] if one["name"] == "relay-9470"]
    assert (port["port"], port["targetPort"]) == (9470, "relay-9470")
    [policy] = [
        one
        for one in rendering.all("NetworkPolicy")
        if selects(one["spec"]["podSelector"]["matchLabels"], server_labels(rendering))
    ]
    [rule] = [
        rule
        for rule in policy["spec"]["ingress"]
        if {"protocol": "TCP", "port": "relay-9470"} in rule["ports"]
    ]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "nginx"}}}]


def test_clients_can_balance_themselves() -> None:
    headless = scenario_on("ha-postgresql", "1.33").one("Service", "-headless")
    assert headless["spec"]["clusterIP"] == "None"
    stateful = scenario_on("ha-postgresql", "1.33").one("StatefulSet")
    assert stateful["spec"]["serviceName"] == headless["metadata"]["name"]
    assert "connection_age_s: 300" in scenario_on("ha-postgresql", "1.33").configuration()


def egress_ports(policy: Object) -> set[int]:
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


@pytest.mark.parametrize(
    ("scenario", "ports"),
    [
        ("default", {53}),
        ("ha-postgresql", {53, 443, 5432, 6514}),
        ("keda", {53, 6432}),
        ("console-oidc", {53, 443, 4317}),
        ("console-proxy", {53}),
        ("restricted-network", {53, 443}),
    ],
)
def test_the_server_may_reach_what_it_is_told_to_use(scenario: str, ports: set[int]) -> None:
    rendering = scenario_on(scenario, "1.33")
    policy = rendering.one("NetworkPolicy")
    assert selects(policy["spec"]["podSelector"]["matchLabels"], server_labels(rendering))
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert egress_ports(policy) == ports
    assert all(rule["to"] for rule in policy["spec"]["egress"])


def test_only_named_peers_come_in() -> None:
    policy = scenario_on("restricted-network", "1.33").one("NetworkPolicy")
    grpc, http = policy["spec"]["ingress"]
    test = {"podSelector": {"matchLabels": {
        "app.kubernetes.io/name": "loragate", "app.kubernetes.io/instance": "loragate",
        "app.kubernetes.io/component": "test",
    }}}  # fmt: skip
    assert grpc["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "images"}},
            "podSelector": {"matchLabels": {"app": "image-server"}},
        },
        test,
    ]
    assert [port["port"] for port in grpc["ports"]] == ["grpc"]
    assert http["from"][-1] == test
    assert len(http["from"]) == 2
    for rendering in (scenario_on(*case) for case in SHARED):
        for rule in rendering.one("NetworkPolicy")["spec"]["ingress"]:
            assert rule["from"], "an empty list would let everybody in"


def test_migrations_come_first_and_may_reach_the_database_only() -> None:
    rendering = scenario_on("ha-postgresql", "1.33")
    job, policy = rendering.one("Job", "-migrations"), rendering.one("NetworkPolicy", "-migrations")
    hook, weight = "helm.sh/hook", "helm.sh/hook-weight"
    for found in (job, policy):
        assert found["metadata"]["annotations"][hook] == "pre-install,pre-upgrade"
    weights = [int(one["metadata"]["annotations"][weight]) for one in (policy, job)]
    assert weights == sorted(weights)
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)
    assert egress_ports(policy) == {53, 5432}
    assert "ingress" not in policy["spec"]
    # Nothing that the release makes later may be needed.
    pod = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    assert [next(iter(set(volume) - {"name"})) for volume in pod["volumes"]] == ["emptyDir"]


def test_each_replica_writes_its_own_decision_log() -> None:
    stateful = scenario_on("ha-postgresql", "1.33").one("StatefulSet")
    [claim] = stateful["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "loragate-state"
    shared = scenario_on("hpa", "1.33").server()
    [mount] = [one for one in shared["volumeMounts"] if one["mountPath"] == "/var/lib/loragate"]
    assert mount["subPathExpr"] == "$(POD_NAME)"
    names = [variable["name"] for variable in shared["env"]]
    assert "POD_NAME" in names


def test_a_volume_that_one_pod_can_mount_is_handed_over() -> None:
    assert scenario_on("default", "1.33").workload()["spec"]["strategy"] == {"type": "Recreate"}
    strategy = scenario_on("hpa", "1.33").workload()["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_decision_log_outlives_the_release() -> None:
    claim = scenario_on("default", "1.33").one("PersistentVolumeClaim", "-state")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_scaling_leaves_the_number_of_replicas_alone() -> None:
    for scenario, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        rendering = scenario_on(scenario, "1.33")
        target = rendering.one(kind)["spec"]["scaleTargetRef"]
        workload = rendering.workload()
        assert (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"])
        assert "replicas" not in workload["spec"]
        assert rendering.all("PodDisruptionBudget")
        assert len(workload["spec"]["template"]["spec"]["topologySpreadConstraints"]) == 2


def test_the_pods_end_before_they_are_killed() -> None:
    for case in SHARED:
        rendering = scenario_on(*case)
        settings = yaml.safe_load(rendering.configuration())
        spec = rendering.workload()["spec"]["template"]["spec"]
        given = settings["drain_delay_s"] + settings["drain_grace_s"]
        assert spec["terminationGracePeriodSeconds"] > given


def test_probes_ask_the_paths_that_the_server_has() -> None:
    shared, sidecar = (
        scenario_on("default", "1.33").server(),
        scenario_on("sidecar", "1.33").server(),
    )
    paths = {
        name: [one[f"{name}Probe"]["httpGet"]["path"] for one in (shared, sidecar)]
        for name in ("startup", "liveness", "readiness")
    }
    assert paths == {
        "startup": ["/healthz", "/readyz"],
        "liveness": ["/healthz", "/healthz"],
        "readiness": ["/readyz", "/readyz"],
    }


def test_the_console_alone_is_shown_outside() -> None:
    [rule] = scenario_on("console-oidc", "1.33").one("Ingress")["spec"]["rules"]
    assert rule["host"] == "loragate.example.com"
    assert [path["path"] for path in rule["http"]["paths"]] == ["/console"]
    route = scenario_on("console-proxy", "1.33").one("HTTPRoute")["spec"]
    assert route["hostnames"] == ["loragate.example.com"]
    [matched] = route["rules"]
    assert [match["path"]["value"] for match in matched["matches"]] == ["/console"]


def test_alerts_and_dashboard_come_with_the_chart() -> None:
    rendering = scenario_on("default", "1.33")
    groups = rendering.one("PrometheusRule")["spec"]["groups"]
    files = [CHART / "rules" / f"{name}.yaml" for name in ("recording", "alerts")]
    assert groups == [
        group for file in files for group in yaml.safe_load(file.read_text())["groups"]
    ]
    rules = [rule for group in groups for rule in group["rules"]]
    assert sum("alert" in rule for rule in rules) >= 10
    assert sum("record" in rule for rule in rules) >= 5
    dashboard = rendering.one("ConfigMap", "-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert yaml.safe_load(dashboard["data"]["loragate.json"])["title"]


def patched_workload() -> Object:
    """An image server's Deployment with the sidecar's patch in it, as kubectl would merge it."""
    patch = yaml.safe_load(
        scenario_on("sidecar", "1.33").one("ConfigMap", "-sidecar")["data"]["patch.yaml"]
    )["spec"]["template"]
    container = {"name": "comfyui", "image": "comfyui:1"}
    [addition] = patch["spec"]["containers"]
    assert addition["name"] == container["name"]
    pod: dict[str, Any] = patch["spec"] | {"containers": [container | addition]}
    labels = {"app": "comfyui"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "comfyui"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": labels | patch["metadata"]["labels"],
                    "annotations": patch["metadata"]["annotations"],
                },
                "spec": pod,
            },
        },
    }


HOURS_OF_A_FIRST_BUILD_S = 4 * 3600
"""A sidecar answers /readyz when what its first start builds is there; a kill begins it anew."""


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_the_patch_makes_a_valid_workload(version: str) -> None:
    kubernetes_validate.validate(patched_workload(), version, strict=True)


def test_the_sidecar_is_native_and_shares_only_the_socket() -> None:
    spec = patched_workload()["spec"]["template"]["spec"]
    [sidecar], [server] = spec["initContainers"], spec["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    probe = sidecar["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= HOURS_OF_A_FIRST_BUILD_S
    assert server["env"] == [
        {"name": "LORAGATE_TARGET", "value": "unix:/run/loragate/loragate.sock"}
    ]
    shared = {m["name"] for m in sidecar["volumeMounts"]} & {
        m["name"] for m in server["volumeMounts"]
    }
    assert shared == {"loragate-socket"}
    assert "grpc" not in {port["name"] for port in sidecar["ports"]}
    [monitor] = scenario_on("sidecar", "1.33").all("PodMonitor")
    labels = patched_workload()["spec"]["template"]["metadata"]["labels"]
    assert selects(monitor["spec"]["selector"]["matchLabels"], labels)


def test_all_objects_carry_the_common_labels(changed: Callable[..., Rendering]) -> None:
    rendering = changed({"commonLabels": {"team": "content-safety"}})
    assert {found["metadata"]["labels"]["team"] for found in rendering.objects} == {
        "content-safety"
    }


def test_links_to_runbooks_lead_to_the_operators_copy(changed: Callable[..., Rendering]) -> None:
    copy = "https://wiki.example/loragate"
    rendering = changed({"monitoring": {"runbookUrl": copy}})
    groups = rendering.one("PrometheusRule")["spec"]["groups"]
    links = [
        rule["annotations"]["runbook_url"]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert links
    assert all(link.startswith(f"{copy}/Loragate") for link in links)
    dashboard = rendering.one("ConfigMap", "-dashboard")["data"]["loragate.json"]
    assert "loragate.example" not in dashboard


def test_every_pod_of_the_chart_runs_where_pods_may(changed: Callable[..., Rendering]) -> None:
    """A hook that waits for a node that nobody lets it on holds up every installation."""
    placement = {
        "nodeSelector": {"pool": "images"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
    }
    values = {**placement, "extraEnv": [{"name": "PGSSLROOTCERT", "value": "/ca"}]}
    made = changed(values, "ha-postgresql")
    jobs = [one["spec"]["template"]["spec"] for one in made.all("Job")]
    pods = [one["spec"] for one in made.all("Pod")]
    assert jobs
    assert pods
    for spec in (*jobs, *pods, made.workload()["spec"]["template"]["spec"]):
        assert {name: spec.get(name) for name in placement} == placement
    [migrations] = jobs
    assert {"name": "PGSSLROOTCERT", "value": "/ca"} in migrations["containers"][0]["env"]


def test_a_sidecar_has_the_time_that_its_drain_takes(changed: Callable[..., Rendering]) -> None:
    values = {"terminationGracePeriodSeconds": 120, "config": {"drain_grace_s": 90}}
    made = changed(values, "sidecar")
    [patch] = [
        yaml.safe_load(one["data"]["patch.yaml"])
        for one in made.all("ConfigMap")
        if "patch.yaml" in one.get("data", {})
    ]
    assert patch["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120
