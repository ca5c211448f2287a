"""What SD.Next reads and A1111 does not: members that stand for others, queries, wildcards."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.verdicts import EVIL, found, refusal

TEXT, CONTROL = ROUTES["a1111"], "/sdapi/v1/control"
MULTIPLIER = "extra_networks_default_multiplier"
INK = "<lora:ink>"


def said(body: Any, path: str = TEXT, **settings: Any) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        extractor("a1111", **settings).extract(post(path, body))
    return caught.value.message


TOP_LEVEL: tuple[dict[str, Any], ...] = (
    {"styles": ["evil"]},
    {"alwayson_scripts": {"evil": {"args": []}}},
    {"script_name": "Prompts from file or textbox"},
    {"override_settings": {"sd_model_checkpoint": "evil"}},
    {"alwayson_scripts": {"refiner": {"args": [True, "evil", 0.8]}}},
    {"override_settings": {"lora_dir": "/elsewhere"}},
    {"sd_lora": ["evil"]},
    {"prompt": "a __evil__ lake"},
    {"hr_checkpoint_name": "evil"},
)


@pytest.mark.parametrize("body", TOP_LEVEL)
def test_what_is_refused_in_a_body_is_refused_in_its_extra_members(body: dict[str, Any]) -> None:
    for one in (body, {"extra": body}):
        request = post(TEXT, {"prompt": INK, **one})
        assert refusal("a1111", request, base_names=["base"]), one


@pytest.mark.parametrize(
    "extra",
    [
        {"override_settings": {MULTIPLIER: 50}},
        {MULTIPLIER: 50},  # as the route of SD.Next for controls takes them
    ],
)
@pytest.mark.parametrize("path", [TEXT, CONTROL])
def test_strengths_of_tags_that_extra_members_change_are_refused(extra: Any, path: str) -> None:
    assert said({"prompt": INK, "extra": extra}, path) == "/extra changes the strength of tags."


def test_extra_settings_take_the_place_of_those_that_an_audit_would_go_by() -> None:
    weak = {"prompt": INK, "override_settings": {MULTIPLIER: 0.1}}
    assert "/extra changes" in said({**weak, "extra": {"override_settings": {"CLIP_skip": 2}}})
    kept = {"extra": {"override_settings_restore_afterwards": False}}
    assert "would stay" in said({**weak, **kept})


def test_extra_members_that_change_nothing_of_loras_pass() -> None:
    body = {"prompt": INK, "extra": {"cfg_end": 0.8, "override_settings": {"CLIP_skip": 2}}}
    assert found("a1111", post(TEXT, body)) == ["/loras/ink.safetensors"]
    extras: tuple[Any, ...] = (None, {})
    for extra in extras:
        assert found("a1111", post(TEXT, {"prompt": "a lake", "extra": extra})) == []


@pytest.mark.parametrize("name", ["extra", "override_settings"])
def test_a_list_of_which_a_server_makes_an_object_is_refused(name: str) -> None:
    assert said({"prompt": INK, name: [[MULTIPLIER, 50]]}) == f"/{name} is no object."


@pytest.mark.parametrize(
    ("body", "script"),
    [
        ({"face": {"mode": "PhotoMaker", "source_images": ["iVBORw0KGgo"]}}, "face"),
        ({"face": {"mode": "FaceID"}}, "face"),
        ({"face": [["mode", "FaceID"]]}, "face"),
        ({"xyz": {"x_type": "[Network] LoRA", "x_values": "evil"}}, "xyz grid"),
        ({"xyz": {}}, "xyz grid"),
    ],
)
def test_a_member_that_stands_for_a_script_is_that_script(body: Any, script: str) -> None:
    assert said(body, CONTROL) == f"/scripts/{script} may put tags into prompts."
    allowed = ["refiner", script]
    assert found("a1111", post(CONTROL, body), allowed_scripts=allowed) == []
    assert found("a1111", post(TEXT, {"prompt": "a lake", "face": None, "xyz": None})) == []


def asked(query: str, body: bytes = b"", path: str = "/sdapi/v1/checkpoint") -> HttpRequest:
    return post(f"{path}?{query}", body)


@pytest.mark.parametrize(
    "query",
    [
        "sd_model_checkpoint=evil",
        "force=true&sd_model_checkpoint=evil",
        "sd_model_checkpoint=base&sd_model_checkpoint=evil",
        "sd%5Fmodel%5Fcheckpoint=evil",
    ],
)
def test_a_base_in_the_query_is_another_base(query: str) -> None:
    assert refusal("a1111", asked(query), base_names=["base"]) == RefusalCode.ADAPTER_AMBIGUOUS
    with_body = asked(query, b'{"prompt": "a"}', TEXT)
    assert refusal("a1111", with_body, base_names=["base"]) == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_query_is_read_like_a_body() -> None:
    base = {"base_names": ["base"]}
    assert found("a1111", asked("sd_model_checkpoint=base&dtype=FP16"), **base) == []
    assert found("a1111", asked("force=true", path="/sdapi/v1/reload-checkpoint"), **base) == []
    tag = asked("prompt=%3Clora%3Aevil%3A1%3E")
    assert found("a1111", tag) == [EVIL]
    assert extractor("a1111").rewrite(tag, {0: "/loras/ink.safetensors"}) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [("lora_apply_te", True), ("lora_force_diffusers", False), ("lora_apply_tags", 0)],
)
@pytest.mark.parametrize("path", [TEXT, "/sdapi/v1/options"])
def test_how_files_are_loaded_stays_as_the_audit_takes_it(name: str, told: bool, path: str) -> None:
    def bodies(value: Any) -> list[dict[str, Any]]:
        settings = {name: value}
        return [settings, {"override_settings": settings}, {"extra": settings}]

    for body in bodies(told):
        assert found("a1111", post(path, body)) == []
    for value in (not told, "true", "False", [told]):
        for body in bodies(value):
            assert "changes how the server loads LoRAs" in said(body, path)
    assert found("a1111", post(path, {name: None})) == []
    assert refusal("a1111", post(path, {"override_settings": {name: None}})) == "door_closed"


def wildcards(text: str) -> list[str]:
    """Which names of files SD.Next looks for in a prompt, whatever stands around them."""
    return [one.strip() for one in re.findall(r"__(.*?)__", text, re.DOTALL) if one.strip()]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(["__", "_", " ", "\n", "evil", "a/b", ", ", "x"])).map("".join))
def test_a_wildcard_that_names_a_file_never_passes_in_a_prompt(text: str) -> None:
    named = [one for one in wildcards(text) if one.isprintable()]
    for name in ("prompt", "negative_prompt"):
        if named:
            assert "holds a wildcard" in said({name: text})
            assert found("a1111", post(TEXT, {name: text}), allow_wildcards=True) == []


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "snake_case, a __ b"},
        {"prompt": "____ a line ____"},
        {"sampler_name": "DPM++ 2M", "override_settings": {"sd_vae": "my__best__vae.safetensors"}},
        {"override_settings": {"sd_model_checkpoint": "my_file__name__x.ckpt [31e35c80fc]"}},
        {"refiner_checkpoint": "my_file__name__x"},
        {"hr_upscaler": "4x__Ultra__Sharp"},
        {"alwayson_scripts": {"controlnet": {"args": [{"model": "control__v11__canny [d14c]"}]}}},
    ],
)
def test_names_of_files_with_low_lines_are_no_wildcards(body: dict[str, Any]) -> None:
    assert found("a1111", post(TEXT, body)) == []


def drawn(text: str, chance: random.Random) -> str:
    """SD.Next's choices: the innermost braces first, each part without its weight."""

    def one(match: re.Match[str]) -> str:
        part: str = chance.choice(match[1].split("|")).strip()
        depth, cut = 0, -1
        for at, letter in enumerate(part):
            if letter in "<([{":
                depth += 1
            elif letter in ">)]}":
                depth = max(0, depth - 1)
            elif letter == ":" and not depth:
                cut = at
        return part[:cut].strip() if cut >= 0 else part

    made = 1
    while made:
        text, made = re.subn(r"\{([^{}]*)\}", one, text, count=1)
    return text


_gaps = st.sampled_from(["", "", "", "{", "}", "|", ":1}", " : x}", ":2|", "{:1}", "{o|x:3}", " "])


def test_a_tag_that_weighted_choices_make_never_passes() -> None:
    made = 0

    @settings(max_examples=600, deadline=None, derandomize=True)
    @given(st.lists(_gaps, min_size=5, max_size=5), st.integers(0, 9))
    def check(gaps: list[str], seed: int) -> None:
        nonlocal made
        text = "".join(one + gap for one, gap in zip("<lora", gaps, strict=True)) + ":bad:1>"
        if "<lora:" in drawn(text, random.Random(seed)) and "<lora:" not in text:
            made += 1
            assert "may become a tag" in said({"prompt": text})

    check()
    assert made >= 20


@pytest.mark.parametrize(
    "prompt",
    [
        "<lo{r:1}a:bad:1>",
        "<l{or:1|or:2}a:bad:1>",
        "<{lo:1}ra:bad:1>",
        "<lo{r : any}a:bad:1>",
        "<l{o{r:1}:2}a:bad:1>",
    ],
)
def test_a_weight_behind_a_part_of_a_tag_is_refused(prompt: str) -> None:
    assert drawn(prompt, random.Random(1)) == "<lora:bad:1>"
    assert "may become a tag" in said({"prompt": prompt})


@pytest.mark.parametrize(
    "prompt",
    [
        "woman with {white:0.6|green:0.2|{purple|yellow}} hair and {red:.6|blue:.4} dress",
        "I <3 {cats:2|dogs:1}, (harbour:1.2)",
        "{a:1|b:2} <lora:ink:1>",
        "a <b> {c: d}: e",
    ],
)
def test_weighted_choices_of_words_pass(prompt: str) -> None:
    assert len(found("a1111", post(TEXT, {"prompt": prompt}))) == ("<lora" in prompt)
