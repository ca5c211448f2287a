"""The files among which names are looked up."""

from __future__ import annotations

from pathlib import Path

import pytest

from loragate_server.intercept.reading import lora_files
from loragate_server.intercept.reading.joining import may_become_a_tag
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from tests.server.intercept.bodies import post
from tests.server.intercept.verdicts import found, refusal


def test_a_folder_is_listed_with_links_but_never_in_circles(tmp_path: Path) -> None:
    (tmp_path / "loras" / "sub").mkdir(parents=True)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "clay.safetensors").touch()
    (tmp_path / "loras" / "ink.safetensors").touch()
    (tmp_path / "loras" / "notes.txt").touch()
    (tmp_path / "loras" / "sub" / "back").symlink_to(tmp_path / "loras")
    (tmp_path / "loras" / "linked").symlink_to(tmp_path / "more")
    names = LoraFiles(str(tmp_path / "loras")).names
    assert names == ("ink.safetensors", "linked/clay.safetensors")


def test_a_folder_that_is_not_there_leaves_names_as_they_are() -> None:
    assert LoraFiles("/nowhere").names == ()
    request = post("/sdapi/v1/txt2img", {"prompt": "<lora:ink:1>"})
    assert found("a1111", request, lora_folder="/nowhere") == ["/nowhere/ink.safetensors"]


def test_a_folder_with_more_files_than_are_looked_through_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_files, "_MOST_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.safetensors").touch()
    request = post("/sdapi/v1/txt2img", {"prompt": "<lora:1:1>"})
    assert refusal("a1111", request, lora_folder=str(tmp_path)) == "adapter_unnamed"
    assert found("a1111", post("/sdapi/v1/txt2img", {"prompt": "a"})) == []


@pytest.mark.parametrize(
    ("name", "speaks"),
    [
        ("lora_name", True),
        ("myLoRAs", True),
        ("clipLora", True),
        ("WANVIDLORA", True),
        ("multilorastack", True),
        ("lycoris", True),
        ("exploration", False),
        ("ImageColorAdjust", False),
        ("flora", False),
        ("EXPLORATION", False),
    ],
)
def test_words_that_hold_lora_by_chance_speak_of_none(name: str, speaks: bool) -> None:
    assert speaks_of_lora(name) is speaks


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("a {b|c} <3", False),
        ("<3 {long|short} hair (flora:1.2) >", False),
        ("a {b|c} >_< <3 :)", False),
        ("{<lo|<lo}ra:evil:1>", True),
        ("{ <lo | x }ra:evil:1", True),
        ("<{0.5::lora|x}:evil:1>", True),
        ("{2$$$$ra:evil:1>|<lo}", True),
        ("<lo# x\nra:evil:1>", True),
        ("{<|x}lora:evil:1 >", True),
        ("<{{l|l}o|lo}ra:evil:1>", True),
        ("<lyc{o|o}:evil:1>", True),
        ("<hyper{net|x}:evil:1>", True),
    ],
)
def test_only_texts_whose_parts_can_come_together_may_become_a_tag(text: str, may: bool) -> None:
    assert may_become_a_tag(text) is may


def test_a_field_of_a_picture_is_no_wildcard_and_an_exploration_no_lora() -> None:
    body = {"prompt": "a", "init_images": ["AA__AAAA__BB"], "exploration": "high"}
    assert found("a1111", post("/sdapi/v1/img2img", body)) == []
    assert refusal("a1111", post("/sdapi/v1/img2img", {"prompt": "AA__AAAA__BB"})) == (
        "adapter_unnamed"
    )
