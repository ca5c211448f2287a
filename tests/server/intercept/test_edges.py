"""Cases at the edges of what extractors take, each of which a wrong change once left unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.reading.references import hub_file
from loragate_server.intercept.request import HttpRequest, Message
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.verdicts import refusal


def queued(graph: dict[str, Any]) -> HttpRequest:
    return post(ROUTES["comfyui"], {"prompt": graph})


def optional(server: str, path: str, body: Any) -> list[bool]:
    adapters = extractor(server).extract(post(path, body)).adapters
    return [one.optional for one in adapters]


@pytest.mark.parametrize("item", [[], 7, "ink", None])
def test_what_is_no_object_in_a_list_of_loras_is_refused(item: Any) -> None:
    request = post(ROUTES["fooocus"], {"prompt": "a", "loras": [item]})
    assert refusal("fooocus", request) == RefusalCode.ADAPTER_UNNAMED


@pytest.mark.parametrize(("count", "told_apart"), [(64, True), (65, False)])
def test_of_sixty_four_loras_in_two_parts_it_is_told_which_act_together(
    count: int, told_apart: bool
) -> None:
    names = [{"path": f"{n}.safetensors", "is_high_noise": n % 2 == 0} for n in range(count)]
    found = optional("stable_diffusion_cpp", "/sdapi/v1/txt2img", {"prompt": "a", "lora": names})
    assert found == [told_apart] * count


@pytest.mark.parametrize(
    ("prompt", "refused"),
    [("a <lora:ink:1> harbour", False), ("a <lo", True), ("a harbour", False)],
)
def test_what_is_put_into_a_prompt_may_complete_a_tag_that_has_begun(
    prompt: str, refused: bool
) -> None:
    args = [{"ad_model": "face", "ad_prompt": "[PROMPT] red"}]
    scripts = {"ADetailer": {"args": args}}
    request = post(ROUTES["a1111"], {"prompt": prompt, "alwayson_scripts": scripts})
    if refused:
        assert refusal("a1111", request) == RefusalCode.ADAPTER_AMBIGUOUS
    else:
        assert extractor("a1111").extract(request).adapters is not None


def test_a_list_of_adapters_is_active_as_a_whole_wherever_it_stands() -> None:
    both = {"lora": ["/loras/a.safetensors", "/loras/b.safetensors"]}
    assert optional("kserve", ROUTES["kserve"], both) == [False, False]
    assert optional("kserve", ROUTES["kserve"], {"parameters": both}) == [False, False]
    apart = {"lora_a": "/loras/a.safetensors", "lora_b": "/loras/b.safetensors"}
    assert optional("kserve", ROUTES["kserve"], {"parameters": apart}) == [True, True]


@pytest.mark.parametrize(
    ("model", "refused"), [(None, False), ("", False), ("base", False), ("owner/base", True)]
)
def test_a_model_that_may_come_from_the_hub_is_refused(model: Any, refused: bool) -> None:
    body = {"prompt": "a", **({} if model is None else {"model": model})}
    request = post(ROUTES["localai"], body)
    if refused:
        assert refusal("localai", request) == RefusalCode.DOOR_CLOSED
    else:
        assert extractor("localai").extract(request).adapters == ()


@pytest.mark.parametrize("model", [None, "", "other"])
def test_with_names_of_bases_a_request_has_to_name_one(model: Any) -> None:
    server = extractor("localai", base_names=["base"])
    body = {"prompt": "a", **({} if model is None else {"model": model})}
    assert server.extract(post(ROUTES["localai"], {**body, "model": "base"})).adapters == ()
    with pytest.raises(RefusedRequestError) as caught:
        server.extract(post(ROUTES["localai"], body))
    assert caught.value.code == RefusalCode.ADAPTER_AMBIGUOUS


def test_where_some_take_a_strength_of_0_for_1_both_are_read() -> None:
    node = {"class_type": "LoraTagLoader", "inputs": {"text": "<lora:ink:0>"}}
    found = extractor("comfyui").extract(queued({"7": node}))
    strengths = {(one.denoiser, one.text_encoder) for a in found.adapters for one in a.strengths}
    assert strengths == {(0.0, 0.0), (1.0, 1.0)}


def upgrade(path: str) -> HttpRequest:
    headers = {"upgrade": "websocket", "connection": "upgrade"}
    return HttpRequest("GET", path, headers=headers)


@pytest.mark.parametrize(
    ("server", "request_", "words"),
    [
        ("comfyui", upgrade("/ws"), "an upgrade by which nothing loads"),
        ("comfyui", upgrade("/other"), "an upgrade that is not known"),
        ("comfyui", post("/prompt"), "/prompt, by which adapters can come in"),
        ("comfyui", post("/interrupt"), "one that loads nothing"),
        ("comfyui", post("/other"), "one in no list"),
        ("comfyui", post("/other", method="GET"), "only reads"),
        (
            "vllm_omni",
            HttpRequest("GET", "/v1/realtime/video", message=Message.TEXT),
            "a message in a WebSocket that is read",
        ),
        (
            "vllm_omni",
            HttpRequest("GET", "/other", message=Message.TEXT),
            "a message that is not read",
        ),
        (
            "triton",
            HttpRequest(
                "POST",
                "/inference.GRPCInferenceService/ModelStreamInfer",
                headers={"content-type": "application/grpc"},
                message=Message.GRPC,
            ),
            "a message in a stream that is read",
        ),
    ],
)
def test_people_are_told_why_a_request_is_read_or_not(
    server: str, request_: HttpRequest, words: str
) -> None:
    assert words in extractor(server).reached(request_)


@pytest.mark.parametrize(
    ("item", "refused"),
    [("evil", True), (0.5, True), ([1], True), (None, False), ("", False), ([], False)],
)
def test_an_unknown_field_of_a_lora_is_refused_where_it_says_something(
    item: Any, refused: bool
) -> None:
    request = post(ROUTES["fooocus"], {"prompt": "a", "advanced_params": {"my_lora": item}})
    if refused:
        assert refusal("fooocus", request) == RefusalCode.ADAPTER_UNNAMED
    else:
        assert extractor("fooocus").extract(request).adapters == ()


def test_an_option_may_mean_each_of_two_files_with_one_stem(tmp_path: Path) -> None:
    for name in ("x/ink.safetensors", "y/ink.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    body = {"prompt": "a <lora:ink:0.5>", "override_settings": {"sd_lora": "ink"}}
    found = extractor("a1111", lora_folder=str(tmp_path)).extract(post(ROUTES["a1111"], body))
    paths = sorted(Path(str(one.path)).parent.name for one in found.adapters)
    assert paths == ["x", "x", "y", "y"]


@pytest.mark.parametrize("file", ["../evil.safetensors", "a/../b", "./a", "a//b", "a\nb", "/a"])
def test_no_file_of_a_repository_lies_outside_of_it(file: str) -> None:
    with pytest.raises(RefusedRequestError):
        hub_file("owner/name", "/lora", file=file)
    with pytest.raises(RefusedRequestError):
        hub_file("owner/name", "/lora", revision=file)
    assert hub_file("owner/name", "/lora", file="a/b.safetensors").weight_name


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("other.safetensors", False),
        ("https://example.org/page", False),
        ("https://example.org/evil.safetensors", True),
        ("urn:air:sd1:lora:civitai:1@2.safetensors", True),
    ],
)
def test_an_input_for_other_models_may_still_not_fetch_weights(value: str, named: bool) -> None:
    graph = {"7": {"class_type": "MyLoader", "inputs": {"thing": value}}}
    server = extractor("comfyui", model_inputs=["thing"])
    request = queued(graph)
    try:
        told = bool(server.extract(request).adapters)
    except RefusedRequestError:
        told = True
    assert told == named


@pytest.mark.parametrize(("longer", "refused"), [(0, None), (1, RefusalCode.BODY_AMBIGUOUS)])
def test_a_type_of_a_thousand_letters_is_the_longest(
    longer: int, refused: RefusalCode | None
) -> None:
    kind = "application/json; a=".ljust(1000 + longer, "x")
    request = post(ROUTES["a1111"], {"prompt": "a"}, content_type=kind)
    assert refusal_or_none("a1111", request) == refused


@pytest.mark.parametrize(("longer", "refused"), [(0, None), (1, RefusalCode.ROUTE_UNKNOWN)])
def test_a_path_of_four_thousand_and_ninety_six_letters_is_the_longest(
    longer: int, refused: RefusalCode | None
) -> None:
    request = post("/".ljust(4096 + longer, "x"), method="GET")
    assert refusal_or_none("sglang", request) == refused


def refusal_or_none(server: str, request: HttpRequest) -> RefusalCode | None:
    try:
        extractor(server).extract(request)
    except RefusedRequestError as error:
        return error.code
    return None


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


@pytest.mark.parametrize(
    ("taker", "found"),
    [
        (node("ApplyLora", stuff=["1", 0]), ["/loras/evil.safetensors"]),
        (node("Other", image=["1", 0]), []),
        (node("Other", model=["1", 0]), []),
    ],
)
def test_what_goes_to_a_node_of_loras_may_be_one_whoever_loads_it(
    taker: dict[str, Any], found: list[str]
) -> None:
    graph = {"1": node("MyUpscaler", model_name="evil.safetensors"), "2": taker}
    adapters = extractor("comfyui").extract(queued(graph)).adapters
    assert [one.path for one in adapters] == found


@pytest.mark.parametrize(
    "source",
    [
        node("Nothing that is there"),
        node("LoraTextExtractor-b1f83aa2", text=["99", 0]),
        node("PrimitiveString", value=["3", 0]),
    ],
)
def test_a_text_from_nowhere_or_out_of_a_circle_is_refused(source: dict[str, Any]) -> None:
    graph = {"2": node("LoraTagLoader", text=["3", 0]), "3": source}
    for part in (graph, {"2": graph["2"]}):
        request = queued(part)
        assert refusal("comfyui", request) == RefusalCode.ADAPTER_UNNAMED


@pytest.mark.parametrize(
    ("digits", "refused"), [(18, RefusalCode.BODY_INCOMPLETE), (19, RefusalCode.BODY_AMBIGUOUS)]
)
def test_a_length_of_eighteen_digits_is_the_longest(digits: int, refused: RefusalCode) -> None:
    request = post(ROUTES["a1111"], {"prompt": "a"}, content_length="9" * digits)
    assert refusal("a1111", request) == refused


def test_a_list_in_the_arguments_alone_is_active_in_every_server() -> None:
    given = [{"path": f"/loras/{name}.safetensors", "multiplier": 0.5} for name in "gh"]
    text = json.dumps({"lora": given})
    body = {"prompt": f"a <sd_cpp_extra_args>{text}</sd_cpp_extra_args>"}
    assert optional("stable_diffusion_cpp", "/sdapi/v1/txt2img", body) == [False, False]
    other = {"lora": [{"path": "i.safetensors", "multiplier": 0.5}]}
    assert optional("stable_diffusion_cpp", "/sdapi/v1/txt2img", body | other) == [True] * 3


GRAPH = json.dumps({"1": node("Anything", name="x"), "2": node("LoraLoader", lora_name="ink")})


@pytest.mark.parametrize(
    "value",
    [
        GRAPH,
        f"\n {GRAPH}",
        json.loads(GRAPH),
        GRAPH.replace("class_type", "class\\u005ftype"),
        '[{"widgets_values": ["ink"]}]',
    ],
)
def test_a_graph_is_one_under_any_name_and_however_it_is_written(value: Any) -> None:
    inputs = {"prompt": "a", "data": value}
    told = value_error("cog", post(ROUTES["cog"], {"input": inputs}))
    assert "workflow" in told
    told = value_error("cog", post(ROUTES["cog"], {"input": {"prompt": "a", "data": GRAPH + "}"}}))
    assert "no valid JSON" in told


@pytest.mark.parametrize("value", ["[1, 2]", '{"class": 1}', "{a cat}", {"type": "x"}])
def test_what_only_looks_like_a_graph_passes(value: Any) -> None:
    request = post(ROUTES["cog"], {"input": {"prompt": "a", "data": value}})
    assert extractor("cog").extract(request).adapters == ()


def value_error(server: str, request: HttpRequest) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        extractor(server).extract(request)
    return caught.value.message


def handed_on(hops: int, kind: str, last: Any, taker: dict[str, Any]) -> dict[str, Any]:
    """A graph in which a value reaches a node over so many others."""
    between = {str(n): node(kind, value=[str(n + 1), 0]) for n in range(1, hops)}
    return {"t": taker, **between, str(hops): last}


LINKED = {
    "text": (
        "PrimitiveString",
        node("PrimitiveString", value="<lora:ink:1>"),
        node("LoraTagLoader", text=["1", 0]),
    ),
    "number": (
        "PrimitiveFloat",
        node("PrimitiveFloat", value=0.5),
        node("LoraLoader", lora_name="ink", strength_model=["1", 0], strength_clip=1.0),
    ),
    "stack": (
        "Reroute",
        node("LoraLoader", lora_name="ink", strength_model=1, strength_clip=1.0),
        node("LoraStackLoaderX", lora_stack=["1", 0]),
    ),
}


@pytest.mark.parametrize("kind", LINKED)
def test_what_is_handed_on_seventeen_times_is_followed_and_not_further(kind: str) -> None:
    between, last, taker = LINKED[kind]
    near, far = (queued(handed_on(hops, between, last, taker)) for hops in (17, 18))
    assert {one.path for one in extractor("comfyui").extract(near).adapters} == {
        "/loras/ink.safetensors"
    }
    assert refusal("comfyui", far) == RefusalCode.ADAPTER_UNNAMED


@pytest.mark.parametrize(("hops", "found"), [(17, 0), (18, 1)])
def test_a_model_that_is_handed_on_further_than_anybody_follows_may_be_a_lora(
    hops: int, found: int
) -> None:
    kind, taker = "PrimitiveString", node("MyUpscaler", model_name=["1", 0])
    graph = handed_on(hops, kind, node(kind, value="x.safetensors"), taker)
    assert len(extractor("comfyui").extract(queued(graph)).adapters) == found


@pytest.mark.parametrize(("more", "read"), [(0, True), (1, False)])
def test_a_text_of_a_million_letters_is_the_longest_that_is_put_together(
    more: int, read: bool
) -> None:
    parts = ("<lora:ink:1>", "x" * (1_000_000 - 12 + more))
    source = node("StringConcatenate", string_a=parts[0], string_b=parts[1], delimiter="")
    graph = {"2": node("LoraTagLoader", text=["3", 0]), "3": source}
    request = queued(graph)
    assert (refusal_or_none("comfyui", request) is None) == read
