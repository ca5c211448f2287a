"""Settings of extractors, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.intercept.registry import EXTRACTORS, make_extractor
from loragate_server.intercept.servers.declarative import Declarative, Rule
from tests.server.intercept.bodies import SETTINGS, post


def test_the_page_of_extractors_is_what_the_code_says() -> None:
    from scripts.extractor_page import DOCUMENT, page

    assert DOCUMENT.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("kind", sorted(EXTRACTORS))
def test_an_extractor_has_the_name_of_the_configuration(kind: str) -> None:
    assert make_extractor("pictures", kind, SETTINGS[kind]).name == "pictures"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("sgland", {}, "no kind 'sgland'; did you mean 'sglang'"),
        ("sglang", {"hub_id": True}, "no setting 'hub_id'; did you mean 'hub_ids'"),
        ("sglang", {"hub_ids": "yes"}, "hub_ids must be of type bool"),
        ("sglang", {"allowed_doors": ["back"]}, "allowed_doors: 'back' is none of"),
        ("sglang", {"allowed_doors": "merge"}, "allowed_doors must be a list of texts"),
        ("sglang", {"max_body_bytes": 0}, "must be at least 1"),
        ("sglang", {"label": "x"}, "no setting 'label'"),
        ("comfyui", {}, "needs the setting 'lora_folder'"),
        ("a1111", {"lora_folder": ""}, "needs the setting 'lora_folder'"),
        ("cog", {"owner_names": "x"}, "owner_names must be"),
        ("declarative", {"rules": []}, "needs the setting 'rules'"),
        ("declarative", {"rules": [{"path": "x", "door": True}]}, r"rules\[0\]: path: 'x'"),
        ("declarative", {"rules": [{"path": "/x"}]}, "either a reference or door"),
        ("declarative", {"rules": [{"path": "/x", "reference": "$["}]}, "is no JSONPath"),
        ("declarative", {"rules": [{"path": "/x", "refrence": "$"}]}, "'refrence' is none of"),
        ("declarative", {"rules": [{"path": "/x", "door": "yes"}]}, "door is of the wrong type"),
        ("declarative", {"rules": [{"path": "/x", "door": True, "method": "LOAD"}]}, "'LOAD'"),
        ("declarative", {"rules": ["/x"]}, r"rules\[0\] is no mapping"),
    ],
)
def test_a_wrong_setting_is_named(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_extractor("pictures", kind, settings)


def test_rules_may_be_made_in_python() -> None:
    made = Declarative(rules=[Rule(path="/generate", reference="$.lora")])
    request = post("/generate", {"lora": "/loras/ink.safetensors"})
    assert [one.path for one in made.extract(request).adapters] == ["/loras/ink.safetensors"]


def test_the_smallest_limits_are_one() -> None:
    made = make_extractor("x", "sglang", {"max_body_bytes": 1, "max_nesting": 1})
    assert (made.limits.max_bytes, made.limits.max_nesting) == (1, 1)
    with pytest.raises(ValueError, match="must be at least 1"):
        make_extractor("x", "sglang", {"max_nesting": 0})
