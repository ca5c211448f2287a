"""LoRAs in places where they are not expected."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import (
    chunk,
    extractor,
    framed,
    load_message,
    post,
)
from tests.server.intercept.verdicts import EVIL, found, refusal


def graph(class_type: str, **inputs: Any) -> HttpRequest:
    other = {"class_type": "PrimitiveString", "inputs": {"value": "evil"}}
    node = {"class_type": class_type, "inputs": inputs}
    return post("/prompt", {"prompt": {"1": node, "2": other}})


def made_while_running(**inputs: Any) -> HttpRequest:
    node = {"class_type": "LoraLoader", "inputs": inputs}
    other = {"class_type": "StringReverse", "inputs": {"value": "live"}}
    return post("/prompt", {"prompt": {"1": node, "good": other}})


@pytest.mark.parametrize(
    "request_",
    [
        graph("LoraLoader", lora_name="evil.safetensors"),
        graph("Renamed", lora_name="evil"),
        graph("Renamed", LORA_NAME="evil"),
        graph("Renamed", my_lora_7="evil"),
        graph("Renamed", file="evil.safetensors"),
        graph("Renamed", stack=[["evil.safetensors", 1.0, 1.0]]),
        graph("Renamed", rows={"a": {"b": {"file": "evil.safetensors"}}}),
        graph("Renamed", rows={"a": [{"lora": "evil"}]}),
        graph("Renamed", rows=[["evil.safetensors", 1]]),
        graph("Renamed", text="x <LoRA:evil:1>"),
        graph("Lora From Anything", name="evil"),
        graph("Lora From Anything", name=["2", 0]),
        graph("Renamed", lora_name=["2", 0]),
        graph("Power Lora Loader (rgthree)", lora_1={"on": "False", "lora": "evil"}),
        graph("CR LoRA Stack", switch_1="On", lora_name_1="evil"),
    ],
    ids=lambda request: request.body.decode()[:90],
)
def test_a_lora_in_any_node_of_a_graph_is_found(request_: HttpRequest) -> None:
    assert found("comfyui", request_) == [EVIL]


@pytest.mark.parametrize(
    "request_",
    [
        graph("LoraLoader", lora_name="../evil.safetensors"),
        graph("LoraLoader", lora_name="/etc/evil.safetensors"),
        graph("LoraLoader", lora_name="C:\\loras\\evil.safetensors"),
        graph("LoraLoader", lora_name="a\\..\\..\\evil.safetensors"),
        graph("LoraLoader", lora_name="\\\\share\\evil.safetensors"),
        graph("LoraLoader", lora_name=["9", 0]),
        graph("LoraLoader", lora_name=["good", 0.0]),
        graph("LoraLoader", lora_name=["good", False]),
        graph("Renamed", lora_rows={"__value__": ["evil", 1]}),
        made_while_running(lora_name=["good", 0]),
        graph("LoraLoader", lora_name={"rows": ["2", 0], "lora": ["2", 0]}),
        graph("LoraLoader", lora_name="evil", strength_model=["9", 0]),
        graph("Renamed", url="https://civitai.com/api/download/models/1"),
        post("/prompt", {"prompt": [{"class_type": "LoraLoader"}]}),
        post("/prompt", {"prompt": {"1": "LoraLoader"}}),
        post("/prompt", {"prompt": {"1": {"class_type": "L", "inputs": ["lora"]}}}),
        post("/prompt", {"graph": {}}),
    ],
    ids=lambda request: request.body.decode()[:90],
)
def test_a_graph_whose_loras_cannot_be_known_is_refused(request_: HttpRequest) -> None:
    code = refusal("comfyui", request_)
    assert code in (RefusalCode.ADAPTER_UNNAMED, RefusalCode.BODY_UNREADABLE)


TXT2IMG = "/sdapi/v1/txt2img"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "<lora:evil>"},
        {"prompt": "[<lora:evil:1>:0.5]"},
        {"hr_negative_prompt": "<LYCO:evil:1>"},
        {"alwayson_scripts": {"ControlNet": {"args": [{"prompt": "<lora:evil:1>"}]}}},
        {"override_settings": {"sd_lora": "evil"}},
        {"infotext": "<lora:evil:1>\nSteps: 20"},
        {"anything": [[["<lora:evil:1>"]]]},
    ],
)
def test_a_tag_in_any_text_is_found(body: dict[str, Any]) -> None:
    assert found("a1111", post(TXT2IMG, body)) == [EVIL]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "<lora:../evil:1>"},
        {"prompt": "<lora:{good|evil}:1>"},
        {"prompt": "{<lo|<ly}ra:evil:1>"},
        {"prompt": "<lora:evil:nan>"},
        {"prompt": "<lora:evil:1:1:1:1>"},
        {"prompt": "<lora:x=evil:1>"},
        {"prompt": "<hypernet:evil:1>"},
        {"prompt": "__styles/evil__"},
        {"prompt": "<lora:good:1>", "script_name": "X/Y/Z plot", "script_args": ["good, evil"]},
        {"prompt": "x", "styles": ["evil"]},
        {"prompt": "x", "override_settings": {"lora_dir": "/evil"}},
        {"prompt": "x", "lora_model": "evil"},
        {"prompt": "x", "lora": [{"path": "evil", "multiplier": 1}]},
        {"<lora:evil:1>": "x"},
    ],
)
def test_a_prompt_whose_tags_cannot_be_known_is_refused(body: dict[str, Any]) -> None:
    assert refusal("a1111", post(TXT2IMG, body)) in (
        RefusalCode.ADAPTER_UNNAMED,
        RefusalCode.ADAPTER_AMBIGUOUS,
        RefusalCode.DOOR_CLOSED,
    )


def test_the_page_of_a1111_and_its_websocket_are_closed_unless_allowed() -> None:
    request = post("/queue/join", {"data": ["<lora:evil:1>"], "fn_index": 3})
    assert refusal("a1111", request) == RefusalCode.DOOR_CLOSED
    upgrade = post("/queue/join", method="GET", upgrade="websocket")
    assert refusal("a1111", upgrade) == RefusalCode.UPGRADE_REFUSED
    assert refusal("a1111", upgrade, allow_web_ui=True) == RefusalCode.UPGRADE_REFUSED
    assert found("a1111", request, allow_web_ui=True) == [EVIL]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("source=a/b&source=/loras/evil.safetensors", {}),
        ("source=a/b", {"source": EVIL}),
        ("source=%ff", {}),
    ],
)
def test_an_install_with_two_sources_is_refused(query: str, body: dict[str, Any]) -> None:
    code = refusal("invokeai", post(f"/api/v2/models/install?{query}", body))
    assert code in (RefusalCode.ADAPTER_AMBIGUOUS, RefusalCode.ROUTE_UNKNOWN)


GRPC = "/inference.GRPCInferenceService/RepositoryModelLoad"


def grpc(body: bytes, **headers: str) -> HttpRequest:
    return post(GRPC, body, content_type="application/grpc", **headers)


def test_weights_in_a_compressed_grpc_message_are_found() -> None:
    message = gzip.compress(load_message("m", {"file:1/a.safetensors": b"weights"}))
    extraction = extractor("triton").extract(grpc(framed(message, 1), grpc_encoding="gzip"))
    assert [one.inline_bytes for one in extraction.adapters] == [b"weights"]


@pytest.mark.parametrize(
    "request_",
    [
        grpc(b""),
        grpc(framed(load_message("m", {}))[:-1]),
        grpc(framed(load_message("m", {})) + framed(load_message("n", {}))),
        grpc(framed(load_message("m", {}), 1)),
        grpc(framed(load_message("m", {}), 1), grpc_encoding="gzip"),
        grpc(framed(load_message("m", {}) + chunk(2, b"n"))),
        grpc(framed(load_message("m", {}) + chunk(9, b"hidden"))),
        grpc(framed(load_message("m", {"file:a.safetensors": b"a"}) * 2)),
        grpc(framed(b"\xff\xff")),
        post(GRPC, framed(load_message("m", {})), content_type="application/grpc-web-text"),
    ],
)
def test_a_grpc_message_that_is_not_read_alike_everywhere_is_refused(
    request_: HttpRequest,
) -> None:
    assert refusal("triton", request_) in (
        RefusalCode.BODY_UNREADABLE,
        RefusalCode.BODY_AMBIGUOUS,
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {"Lora_Weights": EVIL},
        {"my_lora_url": EVIL},
        {"loras": [EVIL]},
        {"anything": EVIL},
        {"weights": EVIL},
    ],
)
def test_a_prediction_that_names_weights_under_any_name_is_found(inputs: dict[str, Any]) -> None:
    assert found("cog", post("/predictions", {"input": inputs})) == [EVIL]


@pytest.mark.parametrize(
    "inputs",
    [
        {"options": {"lora_weights": "ink"}},
        {"options": [{"file": EVIL}]},
        {"options": {"a": {"b": [[EVIL]]}}},
        {"loras": '["/loras/evil.safetensors"]'},
        {"lora_weights": {"url": EVIL}},
    ],
)
def test_a_lora_deep_in_an_input_is_refused(inputs: dict[str, Any]) -> None:
    code = refusal("cog", post("/predictions", {"input": inputs}))
    assert code == RefusalCode.ADAPTER_UNNAMED


def test_the_name_of_an_input_says_whether_an_id_is_on_the_hub() -> None:
    inputs = {"hf_loras": ["studio/ink"]}
    assert found("cog", post("/predictions", {"input": inputs})) == ["hf://studio/ink"]
    named = post("/predictions", {"input": {"lora_weights": "studio/ink"}})
    assert found("cog", named, owner_names="hub") == ["hf://studio/ink"]


def test_loads_over_grpc_are_a_door_of_kserve() -> None:
    request = post(GRPC, framed(load_message("m", {})), content_type="application/grpc")
    assert refusal("kserve", request) == RefusalCode.DOOR_CLOSED
    assert found("kserve", request, allow_repository_loads=True) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"extra_body": {"extra_args": [{"lora": {"name": "x", "path": EVIL}}]}}, [EVIL]),
        ({"LoRA": {"name": "x", "path": EVIL}}, [EVIL]),
        ({"lora_request": {"lora_name": "x", "lora_path": EVIL}}, [EVIL]),
        ({"lora": None, "lora_scale": 0.5, "lora_list": []}, []),
    ],
)
def test_a_lora_object_at_any_depth_is_found(body: dict[str, Any], expected: list[str]) -> None:
    request = post("/v1/chat/completions", {"messages": [], **body})
    assert found("vllm_omni", request) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"lora": EVIL},
        {"lora": '{"name": "x", "path": "/loras/evil.safetensors"}'},
        {"lora": {"name": "x"}},
        {"lora": {"name": "x", "path": EVIL, "lora_file": EVIL}},
        {"my_lora": {"name": "x", "path": EVIL}},
        {"lora": {"name": "x", "path": EVIL, "lora_path": "/loras/good.safetensors"}},
        {"lora": {"name": "x", "adapter": "y", "path": EVIL}},
        {"lora": {"name": "x", "path": EVIL, "scale": 1, "lora_scale": 2}},
    ],
)
def test_a_lora_object_that_is_not_plain_is_refused(body: dict[str, Any]) -> None:
    assert refusal("vllm_omni", post("/v1/images/generations", body)) in (
        RefusalCode.ADAPTER_UNNAMED,
        RefusalCode.ADAPTER_AMBIGUOUS,
    )


def test_a_route_for_json_is_read_as_json_although_it_says_that_it_is_a_form() -> None:
    body = {"lora": {"name": "x", "path": EVIL}}
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        request = post("/v1/images/generations", body, content_type=kind)
        assert found("vllm_omni", request) == [EVIL]


def test_inputs_that_a_go_server_would_read_are_not_overlooked() -> None:
    request = post("/predictions", {"Input": {"lora_weights": EVIL}})
    assert refusal("cog", request) == RefusalCode.BODY_AMBIGUOUS


def test_a_text_that_names_a_lora_for_one_node_keeps_its_tags_for_another() -> None:
    nodes = {
        "1": {"class_type": "LoraLoader", "inputs": {"lora_name": ["3", 0]}},
        "2": {"class_type": "ImpactWildcardEncode", "inputs": {"wildcard_text": ["3", 0]}},
        "3": {"class_type": "PrimitiveString", "inputs": {"value": "a <lora:evil:1>"}},
    }
    assert EVIL in found("comfyui", post("/prompt", {"prompt": nodes}))


def test_a_lora_is_audited_at_the_strength_of_the_node_that_takes_it() -> None:
    nodes = {
        "1": {"class_type": "Lora Selector", "inputs": {"lora_name": "evil"}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": ["1", 0], "strength_model": -7}},
    }
    (adapter,) = extractor("comfyui").extract(post("/prompt", {"prompt": nodes})).adapters
    assert (adapter.path, adapter.strength.denoiser) == (EVIL, -7.0)


def test_nodes_whose_names_look_alike_to_people_are_not_taken_for_one() -> None:
    long = "n" * 50
    for one, other in (("é", "ü"), (f"{long}1", f"{long}2")):
        nodes = {
            one: {"class_type": "Lora Selector", "inputs": {"lora_name": "good"}},
            other: {"class_type": "LoraLoader", "inputs": {"lora_name": "evil"}},
            "3": {"class_type": "LoraLoader", "inputs": {"lora_name": [one, 0]}},
        }
        both = found("comfyui", post("/prompt", {"prompt": nodes}))
        assert sorted(map(str, both)) == [EVIL, "/loras/good.safetensors"]


def test_a_node_that_takes_a_url_is_not_told_of_a_file() -> None:
    url = "https://files.example.org/ink.safetensors"
    request = graph("Lora From Anything", url=url)
    assert found("comfyui", request) == [url]
    assert extractor("comfyui").rewrite(request, {0: "/loras/a.safetensors"}) is None
