"""The schema of the values is closed and described, and README.md tells the same."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from loragate_server.config.listen import Peer, Token
from loragate_server.config.schema import BaseModelEntry, Config
from tests.helm.conftest import CHART, ROOT, SCENARIOS, RefusedError, Rendering, Values

pytestmark = pytest.mark.needs("helm")

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
EXTRACTORS = "properties.config.properties.intercept.properties.extractors"
OPEN = {
    "properties.global": "belongs to parent charts",
    "properties.policy.properties.document": "the server's own parser knows more",
    f"{EXTRACTORS}.additionalProperties.properties.settings": "each kind has its own",
}
"""Objects that take any key, and why."""


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path.removeprefix("."), schema
        for key, inner in schema.items():
            yield from objects(inner, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from objects(inner, f"{path}.{index}")


@pytest.fixture(scope="module")
def chart_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_docs", ROOT / "scripts/chart_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chart_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_every_object_is_closed() -> None:
    found = dict(objects(SCHEMA))
    assert len(found) > 80
    open_ones = {path for path, schema in found.items() if "additionalProperties" not in schema}
    assert open_ones == set(OPEN)
    for path, schema in found.items():
        more = schema.get("additionalProperties", False)
        assert more is False or "type" in more or "$ref" in more, path
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"replicas": 2}, "replicas"),
        ({"image": {"pullpolicy": "Always"}}, "pullpolicy"),
        ({"config": {"treads": 2}}, "treads"),
        ({"config": {"intake": {"root": ["/srv"]}}}, "root"),
        ({"config": {"base_models": [{"name": "a", "path": "/srv/a"}]}}, "path"),
        ({"acknowledge": {"everything": True}}, "everything"),
        ({"affinity": {"podAffinities": {}}}, "podAffinities"),
        ({"extraVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"networkPolicy": {"clients": [{"podSelectors": {}}]}}, "podSelectors"),
    ],
)  # fmt: skip
def test_an_unknown_value_is_refused(
    values: Values, key: str, changed: Callable[..., Rendering]
) -> None:
    with pytest.raises(RefusedError, match=f"Additional property {key} is not allowed"):
        changed(values)


@pytest.mark.parametrize(
    "values",
    [
        {"replicaCount": 0},
        {"mode": "daemon"},
        {"image": {"digest": "sha256:123"}},
        {"config": {"tokens": [{"name": "a", "sha256": "the token itself"}]}},
        {"config": {"drain_grace_s": -1}},
        {"console": {"publicUrl": "http://loragate.example.com"}},
        {"console": {"publicUrl": "https://loragate.example.com/path"}},
        {"console": {"proxy": {"trustedNetworks": ["0.0.0.0/0"]}}},
        {"runAs": {"user": 0}},
        {"keda": {"quantile": 1.5}},
        {"policy": {"document": {"mode": "enforce"}}},
        {"persistence": {"accessMode": "ReadOnlyMany"}},
        {"extraVolumes": [{"name": "loragate-state", "emptyDir": {}}]},
    ],
    ids=json.dumps,
)
def test_an_impossible_value_is_refused(values: Values, changed: Callable[..., Rendering]) -> None:
    with pytest.raises(RefusedError, match="don't meet the specifications of the schema"):
        changed(values)


def test_the_defaults_and_the_scenarios_are_valid() -> None:
    validator = Draft7Validator(SCHEMA)
    for file in (CHART / "values.yaml", *SCENARIOS.values()):
        assert not [
            error.message for error in validator.iter_errors(yaml.safe_load(file.read_text()))
        ]


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in schema.get("properties", {}).items():
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def test_every_value_is_described_once_for_all(chart_docs: ModuleType) -> None:
    values = chart_docs.described_values((CHART / "values.yaml").read_text())
    assert len(values) > 120
    described = {value.path for value in values}
    for path in leaves(SCHEMA):
        above = {path[:length] for length in range(1, len(path) + 1)}
        below = {one for one in described if one[: len(path)] == path}
        assert above & described or below or path == ("global",), path
    for value in values:
        assert re.fullmatch(r"[A-Z`].{5,}\.", value.text), value


def test_readme_and_schema_are_fresh(chart_docs: ModuleType) -> None:
    for file, text in chart_docs.fresh_files(CHART).items():
        assert file.read_text() == text, f"{file.name} is stale; run `make chart`"


def test_a_value_without_description_is_named(chart_docs: ModuleType) -> None:
    with pytest.raises(chart_docs.DocsError, match=r"image\.tag has no description"):
        chart_docs.described_values("image:\n  # -- Digest.\n  digest: x\n  tag: y\n")


def test_settings_of_the_server_have_the_servers_own_bounds() -> None:
    """The schema of `config` names each setting of the server, section by section."""
    sections = {"intake", "gate", "intercept", "log", "listen"}
    properties = SCHEMA["properties"]["config"]["properties"]
    for section in sections:
        known = set(Config.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]
        decided = {"grpc", "http"} if section == "listen" else set()
        assert set(properties[section]["properties"]) == known - decided, section
    for name, model in (("base_models", BaseModelEntry), ("tokens", Token), ("peers", Peer)):
        assert set(properties[name]["items"]["properties"]) == set(model.model_fields), name
