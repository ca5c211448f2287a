"""The real server takes what the chart writes: its configuration, and its policy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loragate_server.config.console import ConsoleSection, OidcSection, ProxySection
from loragate_server.config.events import EventKind
from loragate_server.config.schema import Config
from loragate_server.config.sources import load_config
from loragate_server.config.tracing import TracingSection
from loragate_server.policy.parse import parse_policy
from tests.helm.conftest import CHART, SCENARIOS, Rendering, render, scenario_on

pytestmark = pytest.mark.needs("helm")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Rendering], Config]:
    for name in list(os.environ):
        if name.startswith("LORAGATE_"):
            monkeypatch.delenv(name)

    def loaded(rendering: Rendering) -> Config:
        (file := tmp_path / "loragate.yaml").write_text(rendering.configuration())
        return load_config(file)

    return loaded


def test_the_configuration_is_valid(
    scenario: Rendering, loaded: Callable[[Rendering], Config]
) -> None:
    config = loaded(scenario)
    assert config.state_dir == Path("/var/lib/loragate")
    assert config.listen.http == "0.0.0.0:9464"
    assert config.drain_grace_s > 0


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "sidecar"])
def test_mounts_and_paths_of_the_configuration_agree(
    name: str, loaded: Callable[[Rendering], Config]
) -> None:
    rendering = scenario_on(name, "1.33")
    config = loaded(rendering)
    mounts = {Path(mount["mountPath"]) for mount in rendering.server()["volumeMounts"]}
    paths = [config.state_dir, *config.intake.roots]
    paths += [model.folder for model in config.base_models if model.name != "emoji-tiny"]
    if config.tls is not None:
        paths += [config.tls.cert, config.tls.key]
        paths += [config.tls.client_ca] if config.tls.client_ca else []
    if config.library is not None:
        paths.append(config.library)
    if rendering.all("ConfigMap") and "policy" in yaml.safe_load(rendering.configuration()):
        paths.append(config.policy)
    for key in config.signing.keys:
        paths += [one for one in (key.file, key.public_key, key.pin_file) if one is not None]
    paths += [one.secret_file for one in config.events.receivers]
    for device in config.audit_devices:
        paths += [device.hmac_key_file] if device.hmac_key_file else []
        paths += [device.syslog.ca_file] if device.syslog and device.syslog.ca_file else []
    if config.console.session_secret_file:
        paths.append(config.console.session_secret_file)
    for path in paths:
        assert mounts & {path, *path.parents}, path


def test_settings_come_through(loaded: Callable[[Rendering], Config]) -> None:
    gpu = loaded(scenario_on("gpu", "1.33"))
    assert (gpu.kernel_backend, gpu.threads) == ("triton", 4)
    assert gpu.base_models[0].device == "cuda"
    assert gpu.base_models[0].dtype == "float16"
    assert gpu.gate.byte_budget == 8 * 1024**3
    assert gpu.intake.max_file_bytes == 4 * 1024**3
    assert gpu.intake.roots == (Path("/srv/adapters"),)
    doors = loaded(scenario_on("interception", "1.33")).intercept
    assert doors.http
    assert doors.extractors["comfyui"].settings == {"lora_folder": "/srv/loras"}
    assert loaded(scenario_on("sidecar", "1.33")).listen.grpc == "unix:/run/loragate/loragate.sock"
    assert loaded(scenario_on("pilot", "1.33")).insecure_off_loopback
    assert not loaded(scenario_on("default", "1.33")).insecure_off_loopback


def test_the_keys_of_signatures_are_files_of_the_secret(
    loaded: Callable[[Rendering], Config],
) -> None:
    rendering = scenario_on("ha-postgresql", "1.33")
    old, new = loaded(rendering).signing.keys
    assert (old.file, new.id) == (Path("/etc/loragate/signing/2026-01.pem"), "2026-07")
    assert old.not_after is not None
    volumes = rendering.workload()["spec"]["template"]["spec"]["volumes"]
    [secret] = [one["secret"] for one in volumes if one["name"] == "loragate-signing"]
    assert secret == {"secretName": "loragate-signing", "defaultMode": 0o440}


def test_the_secrets_of_events_are_files_of_the_secret(
    loaded: Callable[[Rendering], Config],
) -> None:
    rendering = scenario_on("ha-postgresql", "1.33")
    events = loaded(rendering).events
    [receiver] = events.receivers
    assert (receiver.name, receiver.give_up_after) == ("tickets", "2d")
    assert receiver.kinds == {EventKind.BLOCK, EventKind.REVIEW}
    assert events.source == "urn:loragate:eu"
    volumes = rendering.workload()["spec"]["template"]["spec"]["volumes"]
    [secret] = [one["secret"] for one in volumes if one["name"] == "loragate-events"]
    assert secret == {"secretName": "loragate-events", "defaultMode": 0o440}


def test_the_files_of_audit_devices_are_those_of_the_secret(
    loaded: Callable[[Rendering], Config],
) -> None:
    rendering = scenario_on("ha-postgresql", "1.33")
    [device] = loaded(rendering).audit_devices
    assert (device.name, device.required) == ("siem", True)
    assert device.hmac_key_file == Path("/etc/loragate/devices/hmac.keys")
    volumes = rendering.workload()["spec"]["template"]["spec"]["volumes"]
    [secret] = [one["secret"] for one in volumes if one["name"] == "loragate-devices"]
    assert secret == {"secretName": "loragate-devices", "defaultMode": 0o440}


def test_the_console_knows_its_people(loaded: Callable[[Rendering], Config]) -> None:
    console = loaded(scenario_on("console-oidc", "1.33")).console
    assert console.oidc is not None
    assert console.oidc.client_secret_file == Path("/etc/loragate/console/oidc-client-secret")
    assert console.roles.reviewer == {"content-safety"}
    proxy = loaded(scenario_on("console-proxy", "1.33")).console
    assert proxy.auth == "proxy"
    assert proxy.proxy.secret_file == Path("/etc/loragate/console/proxy-secret")
    assert proxy.proxy.trusted_networks == ("10.8.0.0/24",)


@pytest.mark.parametrize("name", ["console-oidc", "console-proxy"])
def test_every_setting_of_the_console_is_in_the_chart(name: str) -> None:
    written = yaml.safe_load(scenario_on(name, "1.33").configuration())["console"]
    way = written["auth"]
    # Libraries are mounted to be read only, so that nobody can change a concept there.
    left_out = {"oidc", "proxy", "edit_concepts"}
    assert set(written) == set(ConsoleSection.model_fields) - left_out | {way}
    known = OidcSection if way == "oidc" else ProxySection
    assert set(written[way]) == set(known.model_fields)


def test_every_setting_of_tracing_is_in_the_chart() -> None:
    written = yaml.safe_load(scenario_on("console-oidc", "1.33").configuration())["tracing"]
    assert set(written) == set(TracingSection.model_fields)


@pytest.mark.parametrize("name", ["ha-postgresql", "pilot"])
def test_the_policy_is_valid(name: str) -> None:
    [text] = scenario_on(name, "1.33").one("ConfigMap", "-policy")["data"].values()
    policy = parse_policy(text.encode())
    assert policy.mode.lower() == ("pilot" if name == "pilot" else "enforce")


def checksum(rendering: Rendering) -> str:
    template = rendering.workload()["spec"]["template"]
    return str(template["metadata"]["annotations"]["checksum/config"])


def test_a_changed_policy_restarts_nothing_and_every_other_change_does() -> None:
    policy = {"version": 1, "mode": "enforce", "defaults": {"block_p_value": 0.01}}
    stricter = policy | {"defaults": {"block_p_value": 0.05}}
    first, second = (
        render(SCENARIOS["default"], values={"policy": {"document": document}})
        for document in (policy, stricter)
    )
    assert first.one("ConfigMap", "-policy") != second.one("ConfigMap", "-policy")
    assert first.workload() == second.workload()
    for values in (
        {"config": {"threads": 3}},
        {"config": {"gate": {"queue_limit": 65}}},
        {"policy": {"existingConfigMap": "other"}},
        {"bindAddress": "[::]"},
    ):
        assert checksum(render(SCENARIOS["default"], values=values)) != checksum(
            scenario_on("default", "1.33")
        )


def test_the_policy_is_mounted_as_a_folder_so_that_changes_arrive() -> None:
    server = render(SCENARIOS["default"], values={"policy": {"existingConfigMap": "x"}}).server()
    [mount] = [one for one in server["volumeMounts"] if one["name"] == "loragate-policy"]
    assert mount == {
        "name": "loragate-policy",
        "mountPath": "/etc/loragate/policy",
        "readOnly": True,
    }


def test_every_setting_of_the_server_is_in_the_chart() -> None:
    """In `config` under its own name, or decided by the chart."""
    by_the_chart = {
        "cache_dir", "console", "database_url", "decision_log", "insecure_off_loopback", "library",
        "policy", "state_dir", "tls", "tracing",
    }  # fmt: skip
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(Config.model_fields) - by_the_chart == set(values["config"])
