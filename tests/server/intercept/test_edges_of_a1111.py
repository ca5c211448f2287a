"""Edges of the extractor of A1111, Forge and SD.Next, each where a wrong change was unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusedRequestError
from tests.server.intercept.bodies import ROUTES, extractor, multipart_post, post
from tests.server.intercept.verdicts import found

TEXT = ROUTES["a1111"]
INK, ROBOT = "<lora:ink:1>", "<lora:robot:1>"
SCRIPT = {"adetailer": {"args": [{"ad_prompt": ROBOT}]}}


def adapters(body: Any, **settings: Any) -> tuple[AdapterReference, ...]:
    return extractor("a1111", **settings).extract(post(TEXT, body)).adapters


def optional(body: Any, **settings: Any) -> list[bool]:
    return [one.optional for one in adapters(body, **settings)]


def refused(body: Any, why: str, path: str = TEXT) -> None:
    with pytest.raises(RefusedRequestError, match=why):
        extractor("a1111").extract(post(path, body))


def test_a_whole_path_in_a_tag_is_that_file_and_not_one_below_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    file.touch()
    (one,) = adapters({"prompt": f"<lora:{file}:1>"}, lora_folder=str(tmp_path))
    assert one.path == str(file)


def test_an_address_as_the_option_is_no_name_of_a_lora() -> None:
    refused({"sd_lora": "https://files.example.org/ink"}, "is no name of a LoRA")


def test_the_strength_of_later_tags_is_changed_by_no_option() -> None:
    options = "/sdapi/v1/options"
    refused({"extra_networks_default_multiplier": 0}, "in later requests", options)
    assert found("a1111", post(options, {"samples_format": "png"})) == []
    assert found("a1111", post(TEXT, {"extra_networks_default_multiplier": 0})) == []


def test_a_form_has_no_second_pass_in_which_its_prompt_would_be_left_out() -> None:
    parts = [{"name": "prompt", "text": INK}, {"name": "negative_prompt", "text": ROBOT}]
    request = multipart_post("/images/edits", parts)
    assert [one.optional for one in extractor("a1111").extract(request).adapters] == [False, True]


def test_a_tag_that_stands_in_escapes_is_found_and_cannot_be_rewritten() -> None:
    request = post(TEXT, {"infotext": r"Prompt: \u003clora:ink:1\u003e"})
    assert found("a1111", request) == ["/loras/ink.safetensors"]
    assert extractor("a1111").rewrite(request, {0: "/loras/robot.safetensors"}) is None


def test_names_of_one_file_each_are_certain(tmp_path: Path) -> None:
    for name in ("ink", "robot"):
        (tmp_path / f"{name}.safetensors").touch()
    assert optional({"prompt": f"{INK} {ROBOT}"}, lora_folder=str(tmp_path)) == [False, False]


@pytest.mark.parametrize(
    ("body", "may_be_left_out"),
    [
        # Not every server knows the option.
        ({"negative_prompt": INK, "override_settings": {"sd_lora": "robot"}}, [False, True]),
        # The second pass reads its own prompts instead of the first one's.
        ({"prompt": INK, "hr_prompt": "a", "negative_prompt": ROBOT}, [True, True]),
        ({"prompt": INK, "hr_negative_prompt": ROBOT}, [True, True]),
        # Not every server knows tags of another kind.
        ({"prompt": f"{INK} <lyco:robot:1>"}, [False, True]),
        # An extension may read its own text instead of the prompt.
        ({"prompt": INK, "alwayson_scripts": SCRIPT}, [True, True]),
    ],
)
def test_what_some_server_leaves_out_is_not_certain(
    body: dict[str, Any], may_be_left_out: list[bool]
) -> None:
    assert optional(body) == may_be_left_out


def test_of_sixty_four_loras_it_is_still_told_which_act_together() -> None:
    tags = "".join(f"<lora:style{n}:1>" for n in range(63))
    assert optional({"prompt": tags, "negative_prompt": INK}) == [*[False] * 63, True]


PICTURE = "iVBORw0KGg" + "__ab__" + "A" * 40


def test_a_picture_is_known_by_its_letters_under_a_name_that_is_looked_through() -> None:
    assert optional({"a" * 256: PICTURE}) == []
    refused({"a" * 257: PICTURE}, "holds a wildcard")
    refused({"text": PICTURE}, "holds a wildcard")
    refused({"note": "a __hidden__ lake"}, "holds a wildcard")


def test_extra_arguments_at_the_very_beginning_of_a_prompt_are_read() -> None:
    extra = '<sd_cpp_extra_args>{"lora": "ink"}</sd_cpp_extra_args>'
    refused({"prompt": extra}, "extra arguments")
    refused({"prompt": f"a lake {extra}"}, "extra arguments")


def test_a_prompt_is_put_in_beside_a_tag_but_not_into_one() -> None:
    def script(text: str) -> dict[str, Any]:
        return {"alwayson_scripts": {"adetailer": {"args": [{"ad_prompt": text}]}}}

    assert len(adapters(script(f"[PROMPT] {INK}"))) == 1
    refused(script("<lora:[PROMPT]:1>"), "may become a tag")
