"""Infotexts, read as A1111 and Forge take them apart."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.servers.a1111_infotext import fields_of
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.verdicts import EVIL, found

TEXT = "/sdapi/v1/txt2img"
# As both servers have it.
SERVERS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def said(infotext: str) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        extractor("a1111", base_names=["base"]).extract(picture(infotext))
    return caught.value.message


def picture(infotext: str) -> Any:
    return post(TEXT, {"prompt": "a lake", "infotext": infotext})


_scraps = st.sampled_from(
    ["Model", "TE", "VAE/TE", "a", "-", "/", " ", ":", ": ", ",", ", ", '"', '\\"', "\\", "(", "\t"]
) | st.sampled_from(["Steps: 2, ", '"x, Model: y"', "é", "1", "\r"])


@settings(max_examples=2000, deadline=None)
@given(st.lists(_scraps, max_size=14).map("".join))
def test_the_fields_of_a_line_are_those_that_the_servers_find(line: str) -> None:
    names = [match[0].rstrip() for match in SERVERS.findall(line.strip())]
    assert list(fields_of(line.strip())) == names


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("a\n(Hires checkpoint: evil, Steps: 1, Seed: 2", "Hires checkpoint"),
        ("a\nSteps: 1, Seed: 2, [Model: evil", "Model"),
        ("a\n\tVAE/TE: evil, Steps: 1, Seed: 2", "VAE/TE"),
        ("a\nSteps: 1, Seed: 2, Hires VAE/TE: evil", "Hires VAE/TE"),
        ("a\nSteps: 1, Seed: 2, Hires Module 1: evil", "Hires Module 1"),
        ("a\nSteps: 1, Seed: 2, Module x: evil", "Module x"),
        ("a\nSteps: 1, Seed: 2, VAE: evil", "VAE"),
        ("a\nSteps: 1, Seed: 2, x!TE: evil", "TE"),
        ("a\nCivitai: FLUX, Seed: 2, MoClip skip: 0, del: evil", "Model"),
        ("a\nCivitai: FLUX, Seed: 2, MoClClip skip: 0, ip skip: 1, del: evil", "Model"),
    ],
)
def test_a_field_that_names_a_base_is_found_wherever_the_servers_find_it(
    text: str, field: str
) -> None:
    assert said(text) == f"/infotext says under {field} which model is used."
    assert found("a1111", picture(text)) == []  # where bases are not looked at


@pytest.mark.parametrize(
    "text",
    [
        "a\nSteps: 2, Sampler: Euler, Size: 8x8",
        'a\nSteps: 2, Size: 8x8, ControlNet 0: "Module: canny, Model: control_v11p [d14c]"',
        "a\nSteps: 2, ADetailer model: face_yolov8n.pt, Size: 8x8",
        "a\nCivitai resources: FLUX, Clip skip: 0, Steps: 2, Size: 8x8",
    ],
)
def test_fields_that_name_no_base_pass(text: str) -> None:
    assert found("a1111", picture(text), base_names=["base"]) == []


def test_a_tag_that_comes_about_when_a_text_is_mended_is_read() -> None:
    quoted = r"Hires prompt: \u003cloClip skip: 3, ra:evil:1\u003e, Steps: 2, Civitai: FLUX"
    for line in (quoted, "Hires prompt: <loClip skip: 0, ra:evil:1>, Civitai: FLUX"):
        assert found("a1111", picture(f"a\n{line}")) == [EVIL]
    assert found("a1111", picture("a\nHires prompt: <loClip skip: 0, ra:evil:1>")) == []
