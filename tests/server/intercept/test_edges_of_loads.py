"""Edges of servers that load by name or address, each where a wrong change was left unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import Extraction, RefusalCode
from tests.server.intercept.bodies import ROUTES, extractor, multipart_post, post
from tests.server.intercept.verdicts import found, refusal

INK, MIST = "/loras/ink.safetensors", "/loras/mist.safetensors"


def adapters(server: str, body: Any, **settings: Any) -> tuple[AdapterReference, ...]:
    return extractor(server, **settings).extract(post(ROUTES[server], body)).adapters


def scales(server: str, body: Any, **settings: Any) -> list[float]:
    return [one.strength.denoiser for one in adapters(server, body, **settings)]


def test_one_strength_found_elsewhere_is_that_of_every_adapter() -> None:
    rules = [{"path": "/generate", "reference": "$..lora", "strength": "$.scale"}]
    body = {"items": [{"lora": INK}, {"lora": MIST}], "scale": 0.5}
    assert scales("declarative", body, rules=rules) == [0.5, 0.5]


def test_strengths_that_are_neither_one_nor_one_for_each_are_refused() -> None:
    rules = [{"path": "/generate", "reference": "$..lora", "strength": "$.scales"}]
    items = [{"lora": f"/loras/{name}.safetensors"} for name in "abcd"]
    request = post("/generate", {"items": items, "scales": [0.5, 0.7]})
    assert refusal("declarative", request, rules=rules) == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_local_source_of_an_install_is_a_path_even_where_it_looks_like_a_repository() -> None:
    (one,) = adapters("invokeai", {"source": {"path": "studio/ink"}})
    assert (one.path, one.uri) == ("studio/ink", None)


@pytest.mark.parametrize("source", ["studio/ink:fp16", "studio/ink::folder", "studio/ink:fp16:x"])
def test_an_install_that_leaves_the_file_to_the_server_is_refused(source: str) -> None:
    request = post(ROUTES["invokeai"], {"source": source})
    assert refusal("invokeai", request) == RefusalCode.ADAPTER_AMBIGUOUS


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("studio/ink", "adapter_model.safetensors"),
        ("https://files.example.org/ink.safetensors", None),
        ("https://huggingface.co/studio/ink/resolve/main/x.safetensors", "x.safetensors"),
    ],
)
def test_of_a_repository_the_file_of_peft_is_loaded_unless_another_is_named(
    path: str, file: str | None
) -> None:
    (one,) = adapters("vllm_omni", {"prompt": "a", "lora": {"name": "x", "local_path": path}})
    assert one.weight_name == file


def test_a_file_below_the_folder_of_the_server_is_no_repository_for_its_slash() -> None:
    (one,) = adapters("invokeai", {"source": "loras/ink.safetensors"})
    assert (one.path, one.uri) == ("loras/ink.safetensors", None)


@pytest.mark.parametrize("more", [{"lora_weight_map": {"a": 1}}, {"other": 1}])
def test_a_configuration_of_loras_holds_nothing_that_is_not_read(more: dict[str, Any]) -> None:
    item = {"lora_name": "ink", "local_path": INK}
    for config in ({"lora_list": [item], **more}, {"lora_list": [{**item, **more}]}):
        request = post(ROUTES["xinference"], {"peft_model_config": config})
        assert refusal("xinference", request) == RefusalCode.ADAPTER_UNNAMED


def test_a_door_that_is_open_names_no_adapter() -> None:
    registers = post("/v1/model_registrations/LLM", {"model": "x"})
    assert refusal("xinference", registers) == RefusalCode.DOOR_CLOSED
    for server in ("sglang", "vllm_omni"):
        changes = (
            post("/update_weights", {}) if server == "vllm_omni" else post("/merge_lora_weights")
        )
        assert refusal(server, changes) == RefusalCode.DOOR_CLOSED
        doors = [changes.path.strip("/")]
        assert extractor(server, allowed_doors=doors).extract(changes) == Extraction()
    opened = extractor("xinference", allowed_doors=["model_registrations"])
    assert opened.extract(registers) == Extraction()
    converts = post("/api/v2/models/convert/abc", method="PUT")
    assert refusal("invokeai", converts) == RefusalCode.DOOR_CLOSED
    assert extractor("invokeai", allow_doors=True).extract(converts) == Extraction()


def test_an_install_has_to_name_a_source_and_nothing_else_has() -> None:
    server = extractor("invokeai")
    assert refusal("invokeai", post(ROUTES["invokeai"])) == RefusalCode.ADAPTER_UNNAMED
    assert server.extract(post(ROUTES["invokeai"], method="GET")) == Extraction()
    assert server.extract(post("/api/v2/models/i/abc", {"name": "x"}, "PATCH")).adapters == ()


def omni(body: dict[str, Any]) -> list[bool]:
    return [one.optional for one in adapters("vllm_omni", {"prompt": "a", **body})]


def test_a_list_of_loras_is_read_as_a_whole_and_another_beside_it_or_not() -> None:
    ink, mist = ({"name": path, "local_path": path} for path in (INK, MIST))
    assert omni({"loras": [ink, mist]}) == [False, False]
    assert omni({"loras": [ink], "lora": [mist]}) == [True, True]


@pytest.mark.parametrize("name", ["lora", "\\u006cora"])
def test_an_adapter_in_a_field_of_further_parameters_is_found_however_it_is_written(
    name: str,
) -> None:
    text = f'{{"{name}": {{"name": "x", "local_path": "/data/ink.bin"}}}}'
    parts = [{"name": "prompt", "text": "a"}, {"name": "extra_params", "text": text}]
    request = multipart_post("/v1/videos", parts)
    assert found("vllm_omni", request) == ["/data/ink.bin"]


def test_one_nickname_in_a_list_may_have_its_path_without() -> None:
    one = {"lora_nickname": ["a"], "lora_path": "/srv/a.safetensors"}
    assert [each.path for each in adapters("sglang", one)] == ["/srv/a.safetensors"]


def test_nicknames_that_are_known_need_no_path_and_several_need_one_each() -> None:
    several = {"lora_nickname": ["ink", "mist"]}
    assert adapters("sglang", several, allow_known_nicknames=True) == ()
    request = post(ROUTES["sglang"], several)
    assert refusal("sglang", request) == RefusalCode.ADAPTER_UNNAMED
    request = post(ROUTES["sglang"], {**several, "lora_path": INK})
    assert refusal("sglang", request) == RefusalCode.ADAPTER_AMBIGUOUS


@pytest.mark.parametrize("name", ["sub/x.safetensors", "", 7, {"a": "x.safetensors"}])
def test_a_weight_name_that_a_rule_finds_is_the_plain_name_of_a_file(name: Any) -> None:
    rules = [{"path": "/generate", "reference": "$.lora", "weight_name": "$.file"}]
    (one,) = adapters("declarative", {"lora": "studio/ink", "file": "x.bin"}, rules=rules)
    assert one.weight_name == "x.bin"
    request = post("/generate", {"lora": "studio/ink", "file": name})
    assert refusal("declarative", request, rules=rules) == RefusalCode.ADAPTER_AMBIGUOUS


def test_what_is_set_without_a_strength_is_as_trained() -> None:
    assert scales("sglang", {"lora_nickname": "ink", "lora_path": INK}) == [1.0]


@pytest.mark.parametrize(("text", "refused"), [("", False), (" null ", False), ("ink", True)])
def test_a_field_that_speaks_of_loras_in_another_way_has_to_be_empty(
    text: str, refused: bool
) -> None:
    parts = [{"name": "prompt", "text": "a"}, {"name": "my_lora", "text": text}]
    request = multipart_post("/v1/videos", parts)
    if refused:
        assert refusal("vllm_omni", request) == RefusalCode.ADAPTER_UNNAMED
    else:
        assert found("vllm_omni", request) == []


def test_a_rule_is_given_what_can_be_set_and_nothing_that_is_made_of_it() -> None:
    for name in ("queries", "paths"):
        with pytest.raises(ValueError, match=f"{name}' is none of path, method"):
            extractor("declarative", rules=[{"path": "/x", "door": True, name: {}}])
