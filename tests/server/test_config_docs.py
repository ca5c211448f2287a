"""docs/configuration.md names every setting, with its true default, and its example is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

import loragate_server
from loragate_server.config.events import EventKind
from loragate_server.config.intake import Loader
from loragate_server.config.schema import Config
from loragate_server.config.sources import load_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
WORDED = {
    "cache_dir": None,
    "base_models[].calibration": None,
    "tls": None,
    "library": None,
    "decision_log": None,
    "listen.connection_age_s": None,
    "tls.client_ca": None,
    "database_url": "",
    "tokens": (),
    "peers": (),
    "intake.loaders": get_args(Loader),
    "intake.roots": (),
    "intake.reachable_networks": (),
    "intake.enabled_schemes": frozenset(),
    "intercept.extractors": {},
    "intercept.extractors[].settings": {},
    "intercept.default_extractor": "",
    "intercept.audited_root": None,
    "intercept.relays": {},
    "console.public_url": "",
    "console.oidc": None,
    "console.proxy.secret_header": "",
    "console.proxy.secret_file": None,
    "console.roles.viewer": frozenset(),
    "console.roles.reviewer": frozenset(),
    "console.roles.admin": frozenset(),
    "console.roles.concept_editor": frozenset(),
    "console.session_secret_file": None,
    "console.sensitive_categories": frozenset(),
    "checkpoints.key": None,
    "checkpoints.key.file": None,
    "checkpoints.key.uri": "",
    "checkpoints.key.public_key": None,
    "checkpoints.key.pin_file": None,
    "checkpoints.key.not_before": None,
    "checkpoints.key.not_after": None,
    "checkpoints.stop_after_s": None,
    "witness.key": None,
    "witness.key.file": None,
    "witness.key.uri": "",
    "witness.key.public_key": None,
    "witness.key.pin_file": None,
    "witness.key.not_before": None,
    "witness.key.not_after": None,
    "audit_devices": (),
    "audit_devices[].hmac_key_file": None,
    "audit_devices[].syslog": None,
    "audit_devices[].syslog.ca_file": None,
    "audit_devices[].syslog.cert_file": None,
    "audit_devices[].syslog.key_file": None,
    "audit_devices[].otlp": None,
    "audit_devices[].otlp.ca_file": None,
    "audit_devices[].otlp.headers_file": None,
    "audit_devices[].file": None,
    "events.receivers": (),
    "events.receivers[].kinds": frozenset(EventKind),
    "retention.archive": "",
    "retention.quarantine_key_file": None,
    "signing.keys[].file": None,
    "signing.keys[].uri": "",
    "signing.keys[].public_key": None,
    "signing.keys[].pin_file": None,
    "signing.keys[].not_before": None,
    "signing.keys[].not_after": None,
}
"""Settings whose default is nothing, which the document says in words."""


def settings(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every setting by its path, with its default."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        sections = [
            inner
            for inner in (field.annotation, *get_args(field.annotation))
            if isinstance(inner, type) and issubclass(inner, BaseModel)
        ]
        many = field.annotation not in sections and type(None) not in get_args(field.annotation)
        for section in sections:
            found |= settings(section, f"{path}{'[]' if many else ''}.")
        if not sections or field.annotation not in sections:
            found[path] = field.default
    return found


DOCUMENTED = {name: (default, text) for name, default, text in ROW.findall(DOCUMENT.read_text())}
SETTINGS = settings(Config)
VARIABLE = re.compile(r"\bLORAGATE_[A-Z0-9_]+")
NO_SETTINGS = {"LORAGATE_CONFIG", "LORAGATE_SERVICE_HOST"}
"""Variables that the sources name: one names the file of settings, one is of Kubernetes."""


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert len(SETTINGS) > 40
    assert set(DOCUMENTED) == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_documented_default_is_the_one_in_force(name: str) -> None:
    default, text = DOCUMENTED[name]
    assert len(text) > 5
    actual = SETTINGS[name]
    if name in WORDED:
        assert actual == WORDED[name]
    elif actual is PydanticUndefined:
        assert default == ("`$XDG_STATE_HOME/loragate`" if name == "state_dir" else "required")
    elif name == "base_models":
        assert default == f"`{actual[0].name}`"
    elif name == "policy":
        assert default == "the embedded one"
    elif isinstance(actual, frozenset):
        assert default == f"`[{', '.join(sorted(actual))}]`"
    elif isinstance(actual, tuple):
        assert default == f"`[{', '.join(actual)}]`"
    else:
        assert default == f"`{str(actual).lower() if isinstance(actual, bool) else actual}`"


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (file := tmp_path / "loragate.yaml").write_text(example)
    config = load_config(file)
    assert config.base_models[0].name == "sdxl"
    assert set(YAML(typ="safe").load(example)) <= set(Config.model_fields)


def test_every_variable_that_the_sources_name_is_a_setting() -> None:
    paths = {
        "__".join(parts[:end])
        for parts in (name.replace("[]", "").split(".") for name in SETTINGS)
        for end in range(1, len(parts) + 1)
    }
    settable = {f"LORAGATE_{path.upper()}" for path in paths} | NO_SETTINGS
    sources = sorted(Path(loragate_server.__file__).parent.rglob("*.py"))
    named = {(file.name, one) for file in sources for one in VARIABLE.findall(file.read_text())}
    assert len(named) > 8
    assert {each for each in named if each[1] not in settable} == set()
