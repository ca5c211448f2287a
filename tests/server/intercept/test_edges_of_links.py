"""Edges of texts in ComfyUI, and of what comes by links, where a wrong change was unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.test_comfyui_flow import node, pairs
from tests.server.intercept.test_comfyui_links import loaded, paths, refused

MODEL = {"model": ["4", 0]}


def test_a_tag_that_comes_over_a_reroute_is_one_lora_and_can_be_replaced() -> None:
    graph = {
        "1": node("PrimitiveString", value="a <lora:ink:1>"),
        "2": node("Reroute", any=["1", 0]),
        "3": node("LoraTagLoader", text=["2", 0], **MODEL),
    }
    assert paths(**graph) == ["/loras/ink.safetensors"]
    request = post("/prompt", {"prompt": graph})
    new = extractor("comfyui").rewrite(request, {0: "/loras/clay.safetensors"})
    assert new is not None
    assert b"<lora:clay.safetensors:1>" in new


def test_who_makes_or_keeps_loras_may_say_in_which_folder() -> None:
    trained = node("TrainLoraNode", existing_lora="[None]", seed=1)
    for kind in ("LoraSave", "LoraResizer merge", "LoraExtract"):
        assert paths(a=trained, b=node(kind, folder="mine")) == []
    assert "says where names are looked for" in refused(b=node("LoraLoader", folder="mine"))


@pytest.mark.parametrize("source", ["Mystery", "LoraTrainer"])
def test_it_is_told_which_node_a_lora_would_come_from(source: str) -> None:
    said = refused(a=node(source, x=1), b=node("Apply LoRA Stack", lora_stack=["a", 0]))
    assert f"node /a/{source}" in said


def handed_on(text: str, slot: int, taker: str) -> dict[str, Any]:
    return {
        "1": node("LoraTextExtractor-b1f83aa2", text=text),
        "2": node(taker, text=["1", slot], **MODEL),
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a <lora:ink:1>cat<lora:clay:1> b", {"ink", "clay"}),
        ("<lora:ink:1><lora:clay:1>", {"ink", "clay"}),
        ("<lora:a>b", {"a"}),
        ("<lora:ink:1> <lora:a> c>", {"ink", "a"}),
    ],
)
def test_each_tag_that_an_extractor_hands_on_stands_in_a_line_of_its_own(
    text: str, names: set[str]
) -> None:
    found = loaded(**handed_on(text, 1, "MultiLoraLoader-70bf3d77"))
    assert {one.path for one in found} == {f"/loras/{name}.safetensors" for name in names}


def test_around_a_tag_that_is_taken_out_another_one_may_come_about() -> None:
    found = paths(**handed_on("<lo<lora:ink:1>ra:evil:1>", 0, "LoraTagLoader"))
    assert "/loras/evil.safetensors" in found


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("StringConcatenate", {"string_a": "<lora:ink", "string_b": ":1>", "delimiter": ""}),
        ("StringReplace", {"string": "<X:ink:1>", "find": "X", "replace": "lora"}),
    ],
)
def test_a_text_is_put_together_of_parts_that_are_all_known(
    kind: str, inputs: dict[str, str]
) -> None:
    taker = node("LoraTagLoader", text=["1", 0], **MODEL)
    assert paths(**{"1": node(kind, **inputs), "2": taker}) == ["/loras/ink.safetensors"]
    for name in inputs:
        unknown = node(kind, **{**inputs, name: ["0", 0]})
        said = refused(**{"0": node("LLM", prompt="a"), "1": unknown, "2": taker})
        assert "other nodes make while the graph runs" in said


def test_a_tag_that_other_nodes_put_together_cannot_be_replaced() -> None:
    joined = node("StringConcatenate", string_a="<lora:ink", string_b=":1>", delimiter="")
    graph = {"1": joined, "2": node("LoraTagLoader", text=["1", 0], **MODEL)}
    request = post("/prompt", {"prompt": graph})
    assert extractor("comfyui").rewrite(request, {0: "/loras/clay.safetensors"}) is None


@pytest.mark.parametrize(("more", "read"), [(0, True), (1, False)])
def test_a_text_of_a_million_letters_is_the_longest_in_which_words_are_replaced(
    more: int, read: bool
) -> None:
    # The text as it was counts too.
    text = "<X:ink:1>".ljust(1_000_000 - len("lora") + more)
    source = node("StringReplace", string=text, find="X", replace="lora")
    graph = {"1": source, "2": node("LoraTagLoader", text=["1", 0], **MODEL)}
    if read:
        assert paths(**graph) == ["/loras/ink.safetensors"]
    else:
        assert "other nodes make" in refused(**graph)


@pytest.mark.parametrize(("hops", "read"), [(17, True), (18, False)])
def test_a_text_is_put_together_over_seventeen_nodes_and_no_more(hops: int, read: bool) -> None:
    graph = {"t": node("LoraTagLoader", text=["1", 0], **MODEL)}
    for n in range(1, hops + 1):
        rest: Any = [str(n + 1), 0] if n < hops else ":1>"
        first = "<lora:ink" if n == 1 else ""
        graph[str(n)] = node("StringConcatenate", string_a=first, string_b=rest, delimiter="")
    if read:
        assert paths(**graph) == ["/loras/ink.safetensors"]
    else:
        assert "other nodes make" in refused(**graph)


def test_both_outputs_of_an_extractor_are_told_apart_whichever_is_taken_first() -> None:
    graph = handed_on("<lo<lora:ink:1>ra:evil:1>", 1, "LoraTagLoader")
    graph["3"] = node("LoraTagLoader", text=["1", 0], **MODEL)
    assert set(paths(**graph)) == {"/loras/ink.safetensors", "/loras/evil.safetensors"}


@pytest.mark.parametrize(
    "source",
    [
        node("Lora Info", x=1),
        node("Lora Info", about="a lake"),
        node("Lora Info", lora_count=1),
        node("Efficient Loader", lora_name="ink"),
    ],
)
def test_a_name_comes_from_a_node_of_loras_that_says_which_one(source: Any) -> None:
    said = refused(a=source, b=node("LoraLoader", lora_name=["a", 0]))
    assert "is linked to a node that makes it" in said
    named = node("Lora Info", lora_name="ink")
    assert set(paths(a=named, b=node("LoraLoader", lora_name=["a", 0]))) == {
        "/loras/ink.safetensors"
    }


@pytest.mark.parametrize(
    ("kind", "name", "filled_in"),
    [
        ("FaceDetailer", "wildcard", True),
        ("FaceDetailer", "note", False),
        ("Wildcard Processor", "text", True),
        ("Wildcard Processor", "note", True),
        ("CLIPTextEncode", "text", False),
        ("LoraTagLoader", "text", False),
    ],
)
def test_a_wildcard_is_refused_where_its_node_fills_it_in(
    kind: str, name: str, filled_in: bool
) -> None:
    graph = {"a": node(kind, **{name: "a __hidden__ lake"})}
    if filled_in:
        assert "holds a wildcard" in refused(**graph)
    else:
        assert paths(**graph) == []


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("DEF(X=a lake) a X", ""),
        ("SEG(a, b)", ""),
        ("a < b", ""),
        ("NODE(CLIPTextEncode)", ""),
        ("DEF(X=lora) <X:ink:1>", "has DEF, SEG or SUB"),
        (r"DEF(X=a) \\x", "has DEF, SEG or SUB"),
        ("DEF(X=DE) NOX", "has DEF, SEG or SUB"),
        ("DEF(NODE", "has DEF, SEG or SUB"),
        ("NODE(LoraLoader)", "makes a node of its own"),
    ],
)
def test_macros_are_refused_beside_what_they_can_make_a_tag_of(text: str, refusal: str) -> None:
    graph = {"a": node("PCLazyTextEncode", text=text)}
    if refusal:
        assert refusal in refused(**graph)
    else:
        assert paths(**graph) == []


@pytest.mark.parametrize(
    ("kind", "tag", "taken"),
    [
        ("PCLazyLoraLoader", "<lora:ink>", {(1.0, 1.0)}),
        ("PCLazyLoraLoader", "<lora:ink:0.5>", {(0.5, 0.5)}),
        ("PCLazyLoraLoader", "<lora:ink:0.5:2>", {(0.5, 2.0)}),
        ("LoraTagLoader", "<lora:ink>", {(1.0, 1.0)}),
        ("LoraTagLoader", "<lora:ink:0:2>", {(0.0, 2.0), (1.0, 1.0)}),
        ("LoraTagLoader", "<lora:ink:0.5:0>", {(0.5, 0.0)}),
        ("Power Prompt (rgthree)", "<lora:ink>", {(1.0, 1.0)}),
        ("Power Prompt (rgthree)", "<lora:ink:0.5:2>", {(0.5, 2.0), (0.5, 0.5)}),
        ("ImpactWildcardEncode", "<lora:ink>", {(1.0, 1.0)}),
        ("ImpactWildcardEncode", "<lora:ink:0.5>", {(0.5, 0.5)}),
        ("ImpactWildcardEncode", "<lora:ink:0.5:2>", {(0.5, 2.0)}),
        # What is not written in digits alone is passed over.
        ("ImpactWildcardEncode", "<lora:ink:+0.5:2>", {(2.0, 2.0)}),
    ],
)
def test_each_pack_reads_the_numbers_of_a_tag_in_its_own_way(
    kind: str, tag: str, taken: set[tuple[float, float]]
) -> None:
    (one,) = loaded(k=node(kind, populated_text=tag) if "Impact" in kind else node(kind, text=tag))
    assert pairs(one) == taken


def over(hops: int, taker: dict[str, Any], value: str) -> dict[str, Any]:
    """A graph in which a text reaches a node over so many constants."""
    links = {str(n): node("PrimitiveString", value=[str(n + 1), 0]) for n in range(1, hops)}
    return {"t": taker, **links, str(hops): node("PrimitiveString", value=value)}


def test_a_name_is_followed_over_sixteen_constants_and_no_more() -> None:
    taker = node("LoraLoader", lora_name=["1", 0], **MODEL)
    assert paths(**over(16, taker, "ink")) == ["/loras/ink.safetensors"]
    assert "is linked to a node that makes it" in refused(**over(17, taker, "ink"))


@pytest.mark.parametrize(("hops", "replaced"), [(16, True), (17, False)])
def test_a_tag_is_replaced_over_sixteen_constants_and_no_more(hops: int, replaced: bool) -> None:
    graph = over(hops, node("LoraTagLoader", text=["1", 0], **MODEL), "<lora:ink:1>")
    new = extractor("comfyui").rewrite(
        post("/prompt", {"prompt": graph}), {0: "/loras/clay.safetensors"}
    )
    assert (new is not None) is replaced
