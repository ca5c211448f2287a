"""Edges of the parts that extractors are made of, each where a wrong change was left unnoticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import example, given
from hypothesis import strategies as st

from loragate_server.intercept.extraction import Extraction, RefusedRequestError
from loragate_server.intercept.passing import outline
from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.reading.references import is_folder, is_there
from loragate_server.intercept.reading.tags import Tag
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.servers.a1111_text import refuse_undecidable
from loragate_server.intercept.servers.comfyui_flow import _more_than
from loragate_server.intercept.servers.protobuf_wire import chunk, parts
from tests.server.intercept.bodies import ROUTES, extractor, post


@given(st.integers(1, 2**29 - 1), st.binary(max_size=20) | st.integers(0, 70_000).map(bytes))
@example(1, bytes(128))
@example(1, bytes(16_384))
def test_a_field_is_written_as_protobuf_reads_it(number: int, data: bytes) -> None:
    written = chunk(number, data)
    [part] = parts(written)
    assert (part.number, part.data) == (number, data)
    if number == 1:
        assert BytesValue.FromString(written).value == data


def test_no_model_named_is_the_model_that_is_there_and_true_names_none() -> None:
    for value in (None, False):
        refuse_other_base(value, "/model", {"sd15"})
    with pytest.raises(RefusedRequestError):
        refuse_other_base(True, "/model", {"sd15"})


def test_a_style_in_a_text_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(RefusedRequestError, match="names a style"):
        refuse_undecidable("<style:ink>", "/prompt", "prompt", wildcards=False, styles=False)
    refuse_undecidable("<style:ink>", "/prompt", "prompt", wildcards=False, styles=True)


@pytest.mark.parametrize(
    ("name", "everywhere"),
    [("ink", True), ("a/ink", False), ("ink.safetensors", False), ("a/ink.safetensors", False)],
)
def test_only_a_bare_name_is_a_tag_to_every_server(name: str, everywhere: bool) -> None:
    assert Tag("lora", name, (0, 1), (1.0,), {}).everywhere is everywhere


@pytest.mark.parametrize(
    ("counts", "more"),
    [
        ([2, 2], False),
        ([4], False),
        ([5], True),
        ([2, 3], True),
        ([4, 2], True),
        ([3, 3, 0], True),
        ([0, 9], False),
    ],
)
def test_ways_are_counted_to_the_most_that_are_looked_at(counts: list[int], more: bool) -> None:
    assert _more_than(4, counts) is more


def test_a_server_without_sockets_opens_none() -> None:
    assert extractor("comfyui").opens_sockets
    assert not extractor("cog").opens_sockets


def test_a_path_in_a_log_has_twelve_segments_at_most() -> None:
    def shown(count: int) -> str:
        path = "/".join(["", *["part"] * count])
        return outline(HttpRequest(method="GET", path=path, headers={}, body=b""))

    assert shown(12) == f"GET /{'/'.join(['part'] * 12)}"
    assert shown(13) == shown(12)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_nowhere(name: str) -> None:
    assert not is_folder(name)
    assert not is_there(name)


def test_of_two_files_that_a_name_may_mean_each_may_be_the_one_that_is_not_loaded(
    tmp_path: Path,
) -> None:
    for name in ("ink.safetensors", "ink.sft", "robot.safetensors"):
        (tmp_path / name).write_bytes(b"")
    comfyui = extractor("comfyui", lora_folder=str(tmp_path))

    def optional(name: str) -> list[bool]:
        inputs = {"lora_name": name, "strength_model": 1, "model": ["1", 0]}
        graph = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m"}},
            "2": {"class_type": "LoraLoaderModelOnly", "inputs": inputs},
            "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0]}},
        }
        found = comfyui.extract(post(ROUTES["comfyui"], {"prompt": graph})).adapters
        return [one.optional for one in found]

    assert optional("ink") == [True, True]
    assert optional("robot") == [False]


def test_a_route_of_a1111_that_takes_no_body_names_no_adapter_without_one() -> None:
    interrupt = HttpRequest("POST", "/sdapi/v1/interrupt")
    assert extractor("a1111").extract(interrupt) == Extraction()
    blank = replace(interrupt, headers={"content-length": "1"}, body=b" ")
    with pytest.raises(RefusedRequestError, match="came without a body"):
        extractor("a1111").extract(blank)


def test_a_name_with_a_bracket_is_no_tag_yet() -> None:
    assert extractor("a1111").extract(post(ROUTES["a1111"], {"a<b": 1})).adapters == ()
    with pytest.raises(RefusedRequestError, match="is a name with a tag"):
        extractor("a1111").extract(post(ROUTES["a1111"], {"a<lora:b:1>": 1}))
