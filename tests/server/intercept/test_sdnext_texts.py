"""Texts that SD.Next makes of a request, and looks through again for tags and wildcards."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusedRequestError
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.test_sdnext import drawn
from tests.server.intercept.verdicts import EVIL, found

TEXT = ROUTES["a1111"]
TAG = re.compile(r"<(\w+):([^>]+)>")
thorough = settings(max_examples=800, deadline=None, derandomize=True)


def loaded(prompt: str) -> Iterator[str]:
    """The names of the LoRAs of a prompt: the server looks again at what its tags leave."""
    for _ in range(3):
        yield from (args.split(":")[0] for kind, args in TAG.findall(prompt) if kind == "lora")
        prompt = TAG.sub("", prompt)


def seen(body: Any, names: set[str], **given: Any) -> bool:
    """Whether these LoRAs are asked about, or the request is refused."""
    try:
        paths = found("a1111", post(TEXT, body), **given)
    except RefusedRequestError:
        return True
    return {f"/loras/{name}.safetensors" for name in names} <= set(paths)


_taken_out = st.sampled_from(
    ["", "", "<x:y>", "<lora:ink:1>", "<Z:<q:1>>", "{<x:y>|}", "<x:{y|z}>"]
)


def test_a_tag_that_other_tags_leave_never_goes_by() -> None:
    hidden = 0

    @thorough
    @given(st.lists(_taken_out, min_size=6, max_size=6), st.integers(0, 9))
    def check(gaps: list[str], seed: int) -> None:
        nonlocal hidden
        text = "".join(one + gap for one, gap in zip("<lora:", gaps, strict=True)) + "evil:1>"
        names = set(loaded(drawn(text, random.Random(seed))))
        hidden += "evil" in names and "<lora:evil" not in text
        assert seen({"prompt": text}, names), text

    check()
    assert hidden >= 100


@pytest.mark.parametrize(
    "prompt",
    [
        "I <3 you > me, >_< and <b>bold</b>, 5 < 6 > 2",
        "<lora:ink:1><lora:ink:0.5> <x:y> a lake",
        "<lora:ink:1> -> lora: a tag, <- lyco",
        "<<<lora:ink:1>>> a lake",
    ],
)
def test_brackets_that_leave_no_tag_pass(prompt: str) -> None:
    assert set(found("a1111", post(TEXT, {"prompt": prompt}))) <= {"/loras/ink.safetensors"}


_scraps = st.sampled_from(["<l", "ora:evil:1>", "<lora:evil:1>", "a", "<lora:", "evil:1>"])
_marks = st.sampled_from(["[prompt]", "[PROMPT]", "[Prompt]"])
_prompts = st.lists(_scraps, max_size=2).map("".join)


def test_what_a_prompt_completes_where_it_is_put_in_never_goes_by() -> None:
    hidden = 0

    @thorough
    @given(_prompts, st.lists(_scraps | _marks, min_size=2, max_size=3).map("".join))
    def check(prompt: str, detailer: str) -> None:
        nonlocal hidden
        made = detailer.replace("[PROMPT]", prompt).replace("[prompt]", prompt)
        names = {one for one in loaded(made) if one == "evil"}
        hidden += bool(names) and "<lora:evil" not in prompt + detailer
        assert seen({"prompt": prompt, "detailer_prompt": detailer}, names)

    check()
    assert hidden >= 10


def test_a_detailer_that_takes_the_main_prompt_passes() -> None:
    body = {"prompt": "<lora:evil:1> long_hair", "detailer_prompt": "[prompt], detailed_face"}
    assert found("a1111", post(TEXT, body)) == [EVIL]


_low_gaps = st.sampled_from(["", "", "", "{", "|", "}", "{x|}", "{|\n}", " ", ":1}", "{_|x}"])


def test_a_wildcard_that_choices_make_never_goes_by() -> None:
    made = 0

    @thorough
    @given(st.lists(_low_gaps, min_size=7, max_size=7), st.integers(0, 9))
    def check(gaps: list[str], seed: int) -> None:
        nonlocal made
        letters = ("", "_", "_", "evil", "_", "_", "")
        prompt = "".join(one + gap for one, gap in zip(letters, gaps, strict=True))
        text = drawn(prompt.strip(), random.Random(seed))
        if "__evil__" not in text:
            return
        made += "__evil__" not in prompt
        with pytest.raises(RefusedRequestError, match="holds a wildcard"):
            extractor("a1111").extract(post(TEXT, {"prompt": prompt}))
        assert found("a1111", post(TEXT, {"prompt": prompt}), allow_wildcards=True) == []

    check()
    assert made >= 50


@pytest.mark.parametrize(
    ("prompt", "detailer"),
    [
        ("_evil__", "_[PROMPT]"),
        ("evil__", "[PROMPT]"),
        ("__evil", "a [prompt]__"),
        ("il__", "__ev[PROMPT]"),
    ],
)
def test_a_wildcard_that_comes_about_around_the_main_prompt_is_refused(
    prompt: str, detailer: str
) -> None:
    whole = "__evil__" in detailer.replace("[PROMPT]", prompt).replace("[prompt]", prompt)
    body = {"prompt": prompt, "detailer_prompt": detailer}
    assert seen(body, {"none"}) is whole
    assert found("a1111", post(TEXT, body), allow_wildcards=True) == []


@pytest.mark.parametrize(
    "prompt",
    [
        "{long_hair|short_hair}, :_( a_b_c",
        '{"hair": "long_hair", "eyes": "{red|blue} _"}',
        "# a_b\n1girl, _ {a|b}",
    ],
)
def test_low_lines_beside_choices_pass(prompt: str) -> None:
    assert found("a1111", post(TEXT, {"prompt": prompt})) == []
