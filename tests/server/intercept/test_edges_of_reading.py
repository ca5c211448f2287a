"""Edges of how texts, forms and names are read, each where a wrong change was left unnoticed."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading.bodies import BodyLimits, coded_again, plain_bytes
from loragate_server.intercept.reading.findings import Findings, Found, Spot, rewritten
from loragate_server.intercept.reading.forms import read_form
from loragate_server.intercept.reading.joining import may_become_a_tag
from loragate_server.intercept.reading.json_spans import replace_strings
from loragate_server.intercept.reading.references import anywhere, checked_text
from loragate_server.intercept.reading.tags import tags_in
from tests.server.intercept.bodies import multipart, post

LIMITS = BodyLimits(10_000, 20)
FORM = "application/x-www-form-urlencoded"
CHOICE = re.compile(r"\{([^{}]*)\}")
COMMENT = re.compile(r"#[^\n]*\n\s*")
WEIGHT = re.compile(r"^\s*[0-9.]+::")
TAG = re.compile(r"<(\w+):([^>]+)>")
BETWEEN = st.sampled_from(
    ["", "", "", "{", "}", "|", "#x\n", "# \n  ", "0.5::", " ", "x", "#", ":1", " : 2|", "\n"]
) | st.sampled_from(["<x:y>", "<Z", ":b", ">"])


def drawn(text: str, most: int = 300, *, again: bool = True) -> set[str]:
    """What a server may make of a text, step by step: one choice drawn, or one comment left out."""
    seen, waiting = {text}, [text]
    while waiting and len(seen) < most:
        one = waiting.pop()
        made = [one[: at.start()] + one[at.end() :] for at in COMMENT.finditer(one)]
        made += [TAG.sub("", one)] if again else []  # SD.Next, before it looks again
        for choice in CHOICE.finditer(one):
            for part in choice[1].split("|"):
                plain = WEIGHT.sub("", part)
                # SD.Next has the weights behind the parts, and takes anything for one.
                unweighted = part.rpartition(":")[0] if ":" in part else part
                for each in (plain, plain.strip(), unweighted.strip()):
                    made.append(one[: choice.start()] + each + one[choice.end() :])
        waiting += [new for new in made if new not in seen]
        seen.update(made)
    return seen


@settings(max_examples=300)
@given(st.data())
def test_a_text_that_can_be_drawn_to_a_tag_is_never_taken_for_one_that_cannot(
    data: st.DataObject,
) -> None:
    opener = data.draw(st.sampled_from(["<lora:", "<lyco:"]))
    apart = [data.draw(BETWEEN) + data.draw(BETWEEN) for _ in range(len(opener) + 1)]
    text = "".join(itertools.chain(*zip(apart, opener, strict=False), apart[-1:]))
    if opener in text:
        return
    if any(opener in one.casefold() for one in drawn(text)):
        assert may_become_a_tag(text, again=True)
    if any(opener in one.casefold() for one in drawn(text, again=False)):
        assert may_become_a_tag(text)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("<lo#ra:x", False),
        ("<lo#x\n  ", False),
        ("<lo#x\n  ra:a", True),
        ("<lo#x\n#y\nra:a", True),
        ("<lo#x\n#yra:a", False),
        ("<l{b}xora:a", False),
        ("<l{b|o}ra:a", True),
        ("<lo{ ra:a|b}", True),
        ("<lo{b | ra:a }", True),
        ("{b}<lo ra:a", False),
        ("{a|b}lora:x<", False),
        ("{a|b}ora:x<", False),
        ("a{b}", False),
        ("<lo#x\n ra:a", True),
        ("<lo#x\n   ra:a", True),
        ("<lora:a", False),
        ("<lora{2$$:|x}", True),
        ("<lor{2$$:|x}", False),
    ],
)
def test_letters_join_only_where_a_choice_or_a_comment_goes_between(text: str, may: bool) -> None:
    assert may_become_a_tag(text) is may


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("<lo<x:y>ra:a", True),
        ("<lo<a:<b:c>>ra:a", True),
        ("<lo<{x|y}:z>ra:a", True),
        ("{<lo<x:y>|z}ra:a", True),
        ("<st<x:y>yle:a", True),
        ("<lo<x:y> ra:a", False),
        ("<x:y>lora:a <3", False),
        ("a <b> (lora:1.2) >_< <3", False),
    ],
)
def test_letters_join_around_a_tag_where_the_server_looks_again(text: str, may: bool) -> None:
    assert may_become_a_tag(text, again=True) is may
    assert may_become_a_tag(text.translate({123: None, 125: None})) is False


def test_a_field_that_is_empty_counts_as_sent() -> None:
    request = post("/x", b"prompt=&other=1", content_type=FORM)
    assert [(one.name, one.text) for one in read_form(request, LIMITS)] == [
        ("prompt", ""),
        ("other", "1"),
    ]
    twice = post("/x", b"prompt=&prompt=%3Clora:x:1%3E", content_type=FORM)
    with pytest.raises(RefusedRequestError, match="same field twice"):
        read_form(twice, LIMITS)


def two_fields() -> tuple[bytes, Findings]:
    body = multipart([{"name": "first", "text": "a"}, {"name": "second", "text": "bb"}])
    form = read_form(
        post("/x", body, content_type="multipart/form-data; boundary=----harbour"), LIMITS
    )
    found = tuple(
        Found(AdapterReference(path=one.text), one.name, Spot((), one.text, None, one.name))
        for one in form
    )
    return body, Findings(found, form=form)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_fields_of_a_form_are_rewritten_each_in_its_place(order: tuple[int, int]) -> None:
    body, findings = two_fields()
    paths = {number: f"/copies/{number}/adapter" for number in order}
    expected = body.replace(b"\r\na\r\n", b"\r\n/copies/0/adapter\r\n")
    expected = expected.replace(b"\r\nbb\r\n", b"\r\n/copies/1/adapter\r\n")
    assert rewritten(findings, body, paths) == expected


def url_refusal(text: str) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        anywhere(checked_text(text, "/lora"), "/lora", hub_ids=True)
    return caught.value.message


@pytest.mark.parametrize("query", ["token=x", "token=", "a=1&token="])
def test_a_secret_in_a_url_is_refused_even_where_it_is_empty(query: str) -> None:
    assert "holds a secret" in url_refusal(f"https://files.example/a.safetensors?{query}")


@pytest.mark.parametrize("end", ["#a", "\\a", " a"])
def test_a_url_that_two_readers_may_read_apart_is_refused(end: str) -> None:
    assert "is no plain URL" in url_refusal(f"https://files.example/a{end}.safetensors")


@pytest.mark.parametrize("end", ["resolve/main", "resolve", "tree/main/a.safetensors"])
def test_a_link_to_the_hub_that_names_no_file_is_refused_as_what_it_is(end: str) -> None:
    assert "is no link to a repository or a file" in url_refusal(
        f"https://huggingface.co/owner/name/{end}"
    )


def test_a_link_to_a_file_of_the_hub_is_that_file_at_its_revision() -> None:
    link = "https://huggingface.co/owner/name/resolve/v1/deep/a.safetensors"
    told = anywhere(link, "/lora", hub_ids=True)
    assert (told.uri, told.weight_name, told.revision) == (
        "hf://owner/name",
        "deep/a.safetensors",
        "v1",
    )


@pytest.mark.parametrize("tag", ["<lora:x:1:1:in=1>", "<lora:x:1:in=0.5>", "<lora:x:in=1:mid=0>"])
def test_parts_of_a_denoiser_that_differ_are_not_measured(tag: str) -> None:
    with pytest.raises(RefusedRequestError):
        list(tags_in(tag, "/prompt"))


def test_parts_of_a_denoiser_that_agree_with_the_whole_are_the_whole() -> None:
    [tag] = tags_in("<lora:x:0.5:in=0.5:mid=0.5:out=0.5>", "/prompt")
    assert tag.name == "x"


@pytest.mark.parametrize("text", ['{"a":1,"b":["x","y"]}', '{ "a" : 1 , "b" : [ "x" , "y" ] }'])
def test_a_text_is_replaced_in_json_with_blanks_and_without(text: str) -> None:
    assert json.loads(replace_strings(text, {("b", 1): "new", ("b", 0): "other"})) == {
        "a": 1,
        "b": ["other", "new"],
    }


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_what_was_compressed_is_compressed_again_so_that_its_reader_finds_the_same(
    coding: str,
) -> None:
    packed = coded_again(b"abc" * 9, post("/x", content_encoding=coding))
    unpacked = zlib.decompress(packed) if coding == "deflate" else gzip.decompress(packed)
    assert unpacked == b"abc" * 9
    assert plain_bytes(post("/x", packed, content_encoding=coding), LIMITS) == b"abc" * 9
