"""What every extractor refuses and takes where an operator has set nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as triton  # type: ignore[import-untyped]

from loragate_server.intercept.extraction import Extraction, RefusedRequestError
from loragate_server.intercept.registry import make_extractor
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.servers.declarative import Declarative
from tests.server.intercept.bodies import ROUTES, extractor, framed, post
from tests.server.intercept.verdicts import EVIL, found

HELD = {
    "cog": ("allow_training", post("/trainings", {"input": {"prompt": "a"}})),
    "fooocus": ("allow_wildcards", post(ROUTES["fooocus"], {"prompt": "a __colour__"})),
    "invokeai": ("allow_doors", post("/api/v2/models/sync", method="GET")),
    "kserve": ("allow_repository_loads", post("/v2/repository/models/m/load")),
    "sglang": ("allow_alpha", post("/v1/set_lora", {"lora_path": EVIL, "lora_alpha": 8})),
    "vllm_omni": (
        "allow_int_ids",
        post("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": EVIL, "lora_int_id": 7}),
    ),
    "swarmui": ("allow_wildcards", post(ROUTES["swarmui"], {"prompt": "a <wildcard:colour>"})),
}
"""Of each server, what it refuses unless a setting allows it."""


@pytest.mark.parametrize("server", HELD)
def test_what_a_setting_allows_is_refused_without_it(server: str) -> None:
    setting, request = HELD[server]
    with pytest.raises(RefusedRequestError):
        extractor(server).extract(request)
    allowed = extractor(server, **{setting: True}).extract(request)
    assert set(allowed.adapters) <= set(allowed.adapters[:1])


def test_presets_are_refused_unless_they_are_allowed() -> None:
    request = post(ROUTES["swarmui"], {"prompt": "a", "presets": ["ink"]})
    with pytest.raises(RefusedRequestError, match="names presets"):
        extractor("swarmui").extract(request)
    assert found("swarmui", request, allow_presets=True) == []


NAMED = {
    "declarative": {"lora": "studio/ink"},
    "kserve": {"parameters": {"lora": "studio/ink"}},
    "sglang": {"lora_nickname": "ink", "lora_path": "studio/ink"},
    "vllm_omni": {"prompt": "a", "lora": {"name": "ink", "path": "studio/ink"}},
    "xinference": {"peft_model_config": {"lora_list": [{"local_path": "studio/ink"}]}},
}


@pytest.mark.parametrize("server", NAMED)
def test_an_owner_and_a_name_are_a_repository_where_the_server_reaches_the_hub(server: str) -> None:
    request = post(ROUTES[server], NAMED[server])
    assert found(server, request) == ["hf://studio/ink"]
    assert found(server, request, hub_ids=False) == ["studio/ink"]


@pytest.mark.parametrize(
    "path",
    [
        *("install/huggingface", "models/sync", "models/convert/abc", "custom_nodes/reload"),
        *("models/install/7/restart_file", "custom_nodes/install"),
    ],
)
def test_what_brings_in_models_does_so_by_any_method(path: str) -> None:
    source = post(f"/api/v2/{path}?source=studio/ink", method="GET")
    try:
        named = found("invokeai", source)
    except RefusedRequestError:
        named = ["refused"]
    assert named == (["hf://studio/ink"] if path == "install/huggingface" else ["refused"])


def test_an_install_that_only_reads_is_one_where_it_names_a_source() -> None:
    request = post("/api/v2/models/install?source=studio/ink", method="GET")
    assert found("invokeai", request) == ["hf://studio/ink"]


@pytest.mark.parametrize(("item", "refused"), [(False, False), (None, False), (True, True)])
def test_a_switch_of_localai_that_is_off_names_no_lora(item: Any, refused: bool) -> None:
    request = post(ROUTES["localai"], {"prompt": "a", "use_lora": item})
    if refused:
        with pytest.raises(RefusedRequestError, match="is no known way to name a LoRA"):
            found("localai", request)
    else:
        assert found("localai", request) == []


@pytest.mark.parametrize("name", ["az ink", "AZ Ink", "[az] ink", "azink"])
def test_a_name_for_swarmui_is_compared_without_blanks_brackets_and_capitals(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "[A]Z ink.safetensors").touch()
    request = post(ROUTES["swarmui"], {"loras": [name]})
    assert found("swarmui", request, lora_folder=str(tmp_path)) == [
        f"{tmp_path}/[A]Z ink.safetensors"
    ]


def sent(request: triton.ModelInferRequest) -> HttpRequest:
    path = "/inference.GRPCInferenceService/ModelInfer"
    body = framed(request.SerializeToString())
    return HttpRequest("POST", path, "", {"content-type": "application/grpc"}, body)


def test_all_that_a_client_of_triton_writes_is_read() -> None:
    whole = triton.ModelInferRequest(model_name="m", model_version="1", id="7")
    whole.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    whole.inputs[0].contents.bytes_contents.append(b"a")
    whole.outputs.add(name="image")
    whole.raw_input_contents.append(b"a")
    assert found("triton", sent(whole)) == []
    for number, holder in enumerate((whole, whole.inputs[0], whole.outputs[0])):
        holder.parameters["lora"].string_param = f"/loras/{number}.safetensors"
        holder.parameters["steps"].int64_param = 7
        holder.parameters["guidance_scale"].double_param = 7.5
        holder.parameters["quick"].bool_param = True
        holder.parameters["seed"].uint64_param = 7
    assert found("triton", sent(whole)) == [f"/loras/{number}.safetensors" for number in range(3)]


@pytest.mark.parametrize("rules", ["/x", {"path": "/x", "door": True}, [], ()])
def test_rules_are_a_list_with_at_least_one(rules: Any) -> None:
    with pytest.raises(ValueError, match="at least one rule"):
        Declarative(rules=rules)


def test_a_whole_number_is_a_number_where_a_setting_is_one() -> None:
    made = make_extractor("pictures", "a1111", {"lora_folder": "/loras", "default_strength": 2})
    value = getattr(made, "default_strength")  # noqa: B009 - of this kind alone
    assert (value, type(value)) == (2.0, float)


@pytest.mark.parametrize(("server", "path"), [("comfyui", "/prompt"), ("sglang", "/v1/set_lora")])
def test_to_read_from_a_route_that_loads_by_post_passes(server: str, path: str) -> None:
    assert extractor(server).settle(post(path, method="GET")) == Extraction()
    assert extractor(server).settle(post(path)) is None
