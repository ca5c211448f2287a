"""Devices that could not work are refused, each with what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from loragate_server.app.preflight import problems, warnings
from loragate_server.config.devices import AuditDevice, read_headers
from loragate_server.config.schema import Config
from loragate_server.config.sources import ConfigError, load_config

TCP = {"address": "tcp://siem.example.com:601"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "Siem", "syslog": TCP}, "name"),
        ({"name": "siem"}, "siem has to name one of syslog, otlp and file"),
        ({"name": "siem", "syslog": TCP, "file": {"path": "/x"}}, "has to name one of"),
        ({"name": "siem", "syslog": TCP, "timeout_s": 0}, "timeout_s"),
        ({"name": "siem", "syslog": {"address": "siem.example.com"}}, "it is no address like tls:"),
        ({"name": "siem", "syslog": {"address": "tcp://siem.example.com"}}, "it is no address"),
        ({"name": "siem", "syslog": {"address": "tcp://u:p@siem:601"}}, "it is no address"),
        ({"name": "siem", "syslog": {"address": "tcp://siem:601\n"}}, "it is no address"),
        ({"name": "siem", "syslog": {"address": "tcp://siem:99999"}}, "it is no address"),
        ({"name": "siem", "syslog": {"address": "unix:log"}}, "it is no address"),
        ({"name": "siem", "syslog": {**TCP, "facility": 24}}, "facility"),
        ({"name": "siem", "syslog": {**TCP, "structured_data_id": 'a"b@1'}}, "structured_data_id"),
        ({"name": "siem", "syslog": {**TCP, "ca_file": "/x"}}, "for a tls:// address alone"),
        ({"name": "siem", "syslog": {"address": "tls://s:1", "key_file": "/x"}}, "belong together"),
        ({"name": "lake", "otlp": {"endpoint": "collector:4317"}}, "is not an address like https"),
        ({"name": "lake", "otlp": {"endpoint": "http://c", "ca_file": "/x"}}, "https:// endpoint"),
        (
            {"name": "siem", "required": True, "syslog": {"address": "udp://siem:514"}},
            "siem cannot be required: nothing says whether a datagram .udp. arrived",
        ),
        (
            {"name": "siem", "required": True, "syslog": {"address": "unix:/dev/log"}},
            "siem cannot be required: nothing says whether a datagram .unix. arrived",
        ),
    ],
)
def test_a_device_that_could_not_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AuditDevice.model_validate(settings)


def test_udp_that_is_required_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "loragate.yaml"
    file.write_text(
        "audit_devices:\n  - name: siem\n    required: true\n    syslog: {address: udp://siem:514}\n"
    )
    with pytest.raises(ConfigError, match=r"loragate.yaml:2: audit_devices.0: siem cannot be req"):
        load_config(file)


def test_two_devices_do_not_share_a_name_or_a_file() -> None:
    one = AuditDevice.model_validate({"name": "one", "file": {"path": "/mnt/a.jsonl"}})
    with pytest.raises(ValidationError, match="a name twice"):
        Config(audit_devices=(one, one))
    with pytest.raises(ValidationError, match="a file twice"):
        Config(audit_devices=(one, one.model_copy(update={"name": "two"})))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"file": {"path": "STATE/decisions.jsonl"}}, "is the decision log itself"),
        ({"file": {"path": "STATE/decisions.jsonl.2"}}, "would be taken for a file of the"),
        ({"file": {"path": "/nowhere/second.jsonl"}}, "/nowhere is no folder; make it, or mount"),
        ({"file": {"path": "STATE/x"}, "hmac_key_file": "/nowhere"}, "hmac_key_file: /nowhere"),
        ({"syslog": {"address": "tls://siem:1", "ca_file": "/nowhere"}}, "syslog: /nowhere"),
        ({"otlp": {"endpoint": "https://c", "ca_file": "/nowhere"}}, "otlp.ca_file: /nowhere"),
        ({"otlp": {"endpoint": "https://c", "headers_file": "/nowhere"}}, "otlp.headers_file: /no"),
    ],
)
def test_a_check_says_what_would_keep_the_server_from_starting(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    (tmp_path / "decisions.jsonl").touch()
    if "file" in settings:
        path = settings["file"]["path"].replace("STATE", str(tmp_path))
        settings = {**settings, "file": {"path": path}}
    device = AuditDevice.model_validate({"name": "one", **settings})
    config = Config(state_dir=tmp_path, audit_devices=(device,))
    [line] = [one for one in problems(config) if one.startswith("audit_devices: one: ")]
    assert said in line


@pytest.mark.parametrize("name", ["x!y", "x-trace-bin", "x y", ""])
def test_a_header_that_grpc_cannot_carry_is_refused_by_a_check_without_its_value(
    tmp_path: Path, name: str
) -> None:
    headers = tmp_path / "headers"
    headers.write_text(f"authorization: Bearer abc\n{name}: s3cret\n")
    with pytest.raises(ValueError, match=r"line 2 of .*headers is no header") as caught:
        read_headers(headers)
    assert "s3cret" not in str(caught.value)


def test_a_way_on_which_decisions_can_be_read_is_warned_of() -> None:
    def warned(target: dict[str, Any]) -> bool:
        device = AuditDevice.model_validate({"name": "one", **target})
        return any(
            "can be read on the way" in one for one in warnings(Config(audit_devices=(device,)))
        )

    assert warned({"syslog": TCP})
    assert warned({"otlp": {"endpoint": "http://collector:4317"}})
    assert not warned({"syslog": {"address": "tls://siem:6514"}})
    assert not warned({"syslog": {"address": "tcp://127.0.0.1:601"}})
    assert not warned({"file": {"path": "/mnt/a"}})
