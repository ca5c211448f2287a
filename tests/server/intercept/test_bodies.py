"""Bodies that hide a LoRA from one of their readers."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import (
    BOUNDARY,
    ROUTES,
    multipart,
    multipart_post,
    post,
)
from tests.server.intercept.verdicts import EVIL, SET, found, refusal


def packed(data: bytes) -> bytes:
    """Without a time in it, so that tests are called the same in every process."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize("server", sorted(ROUTES))
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a": 1, "a": 2}', RefusalCode.BODY_AMBIGUOUS),
        (b'{"a": {"b": 1, "\\u0062": 2}}', RefusalCode.BODY_AMBIGUOUS),
        (b'{"a": NaN}', RefusalCode.BODY_UNREADABLE),
        (b'{"a": -Infinity}', RefusalCode.BODY_UNREADABLE),
        (b"\xef\xbb\xbf{}", RefusalCode.BODY_UNREADABLE),
        ("{}".encode("utf-16"), RefusalCode.BODY_UNREADABLE),
        (b'{"a": "\xff"}', RefusalCode.BODY_UNREADABLE),
        (b'{"a": "\\ud800"}', RefusalCode.BODY_UNREADABLE),
        (b'{"a": 1} {"b": 2}', RefusalCode.BODY_UNREADABLE),
        (b'{"a": 1, /* none */ "b": 2}', RefusalCode.BODY_UNREADABLE),
        (b'{"a": 1,}', RefusalCode.BODY_UNREADABLE),
        (b"{'a': 1}", RefusalCode.BODY_UNREADABLE),
        (b"1e\r\n{}\r\n0\r\n\r\n", RefusalCode.BODY_UNREADABLE),
        (b'{"a": ' + b"9" * 10_000 + b"}", RefusalCode.BODY_UNREADABLE),
        (b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", RefusalCode.BODY_UNREADABLE),
        (b"[" * 200_000, RefusalCode.BODY_UNREADABLE),
        (b'{"a": "' + b"x" * 3000 + b'"}', RefusalCode.BODY_UNREADABLE),
    ],
    ids=lambda value: value[:18].hex() if isinstance(value, bytes) else str(value),
)
def test_a_body_that_two_readers_could_read_in_two_ways_is_refused(
    server: str, body: bytes, code: RefusalCode
) -> None:
    limit = 2500 if b"xxx" in body else 1_000_000
    assert refusal(server, post(ROUTES[server], body), max_body_bytes=limit) == code


@pytest.mark.parametrize("server", sorted(ROUTES))
def test_a_body_that_the_proxy_did_not_show_whole_is_refused(server: str) -> None:
    request = post(ROUTES[server], {"prompt": "a harbour"})
    assert refusal(server, replace(request, body_complete=False)) == RefusalCode.BODY_INCOMPLETE
    hidden = post(ROUTES[server], b"", content_length="120")
    assert refusal(server, hidden) == RefusalCode.BODY_INCOMPLETE


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "multipart/form-data", "APPLICATION/JSON"]
)
def test_a_wrong_content_type_hides_no_body(kind: str) -> None:
    assert found("sglang", post("/v1/set_lora", SET, content_type=kind)) == [EVIL]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "application/json; charset=utf-8; charset=utf-7",
    ],
)
def test_a_content_type_that_changes_how_bytes_are_read_is_refused(kind: str) -> None:
    request = post("/v1/set_lora", SET, content_type=kind)
    assert refusal("sglang", request) == RefusalCode.BODY_AMBIGUOUS


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", packed(SET)), ("deflate", zlib.compress(SET)), ("GZIP", packed(SET))],
)
def test_a_compressed_body_is_read(coding: str, body: bytes) -> None:
    assert found("sglang", post("/v1/set_lora", body, content_encoding=coding)) == [EVIL]


@pytest.mark.parametrize(
    ("coding", "body", "code"),
    [
        ("gzip", SET, RefusalCode.BODY_UNREADABLE),
        ("gzip", packed(SET)[:-4], RefusalCode.BODY_UNREADABLE),
        ("gzip", packed(b"{}") + packed(SET), RefusalCode.BODY_UNREADABLE),
        ("gzip", packed(b" " * 10_000_000 + SET), RefusalCode.BODY_UNREADABLE),
        ("deflate", zlib.compress(SET)[2:-4], RefusalCode.BODY_UNREADABLE),
        ("br", SET, RefusalCode.BODY_AMBIGUOUS),
        ("gzip, gzip", packed(packed(SET)), RefusalCode.BODY_AMBIGUOUS),
        ("identity, gzip", packed(SET), RefusalCode.BODY_AMBIGUOUS),
    ],
)
def test_a_coding_that_servers_read_differently_is_refused(
    coding: str, body: bytes, code: RefusalCode
) -> None:
    request = post("/v1/set_lora", body, content_encoding=coding)
    assert refusal("sglang", request, max_body_bytes=1_000_000) == code


def test_a_transfer_coding_that_packs_is_refused() -> None:
    request = post("/v1/set_lora", SET, transfer_encoding="gzip, chunked")
    assert refusal("sglang", request) == RefusalCode.BODY_AMBIGUOUS


def test_header_names_are_read_without_regard_to_case() -> None:
    request = HttpRequest("POST", "/v1/set_lora", "", {"content-encoding": "gzip"}, b"x")
    assert request.header("Content-Encoding") == "gzip"


def test_escaped_names_are_names() -> None:
    body = b'{"lora_nickname": "x", "l\\u006fra_path": "\\/loras/\\u0065vil.safetensors"}'
    assert found("sglang", post("/v1/set_lora", body)) == [EVIL]


@pytest.mark.parametrize("strength", [True, "nan", "1_0", "inf", None, [], 10**400, "٣"])
def test_a_strength_that_is_no_finite_number_is_refused(strength: Any) -> None:
    body = {"lora_nickname": "x", "lora_path": EVIL, "strength": strength}
    assert refusal("sglang", post("/v1/set_lora", body)) == RefusalCode.ADAPTER_AMBIGUOUS


@pytest.mark.parametrize(
    "reference",
    [
        "urn:air:sdxl:lora:civitai:1@2",
        "https://civitai.com/api/download/models/1",
        "https://me:secret@files.example.org/a.safetensors",
        "https://files.example.org/a.safetensors?X-Amz-Signature=1",
        "https://files.example.org/a.zip",
        "ftp://files.example.org/a.safetensors",
        "data:application/octet-stream;base64,AAAA",
        "https://huggingface.co/only-owner",
        "C:\\loras\\a.safetensors",
        " padded ",
        "line\nbreak",
        "",
        7,
        {},
    ],
)
def test_a_reference_that_cannot_be_fetched_is_refused(reference: Any) -> None:
    body = {"lora_nickname": "x", "lora_path": reference}
    code = refusal("sglang", post("/v1/set_lora", body), hub_ids=True)
    assert code == RefusalCode.ADAPTER_UNNAMED


def test_the_setting_decides_between_a_repository_and_a_relative_path() -> None:
    request = post("/v1/set_lora", {"lora_nickname": "x", "lora_path": "studio/ink"})
    assert found("sglang", request) == ["hf://studio/ink"]
    assert found("sglang", request, hub_ids=False) == ["studio/ink"]


def test_a_form_cannot_hide_a_second_lora() -> None:
    one = {"name": "lora", "text": json.dumps({"name": "a", "path": "/loras/a.safetensors"})}
    evil = {"name": "lora", "text": json.dumps({"name": "b", "path": EVIL})}
    edits = "/v1/images/edits"
    assert found("vllm_omni", multipart_post(edits, [one])) == ["/loras/a.safetensors"]
    twice = multipart_post(edits, [one, evil])
    assert refusal("vllm_omni", twice) == RefusalCode.BODY_AMBIGUOUS
    further = {"name": "extra_params", "text": json.dumps({"lora": {"name": "b", "path": EVIL}})}
    both = found("vllm_omni", multipart_post(edits, [one, further]))
    assert both == ["/loras/a.safetensors", EVIL]
    as_file = multipart_post(edits, [{**evil, "file_name": "lora.json"}])
    assert refusal("vllm_omni", as_file) == RefusalCode.ADAPTER_UNNAMED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b'name="lora"', b'name="lora"\r\nContent-Encoding: gzip'),
        lambda body: body.replace(
            b'name="lora"', b'name="lora"\r\nContent-Transfer-Encoding: base64'
        ),
        lambda body: body.replace(b'name="lora"', b'name="lora"\r\nContent-Type: a/b; charset=x'),
        lambda body: body.replace(b"form-data", b"attachment"),
        lambda body: body[: -len(BOUNDARY) - 8],
        lambda body: b"preamble\r\n" + body,
        lambda body: body.replace(b"\r\n", b"\n"),
        lambda body: body.replace(b'"evil', b"\r\n--" + BOUNDARY.encode() + b'x"evil'),
    ],
)
def test_a_form_that_is_not_plain_is_refused(spoil: Any) -> None:
    body = spoil(multipart([{"name": "lora", "text": json.dumps({"name": "evil", "path": EVIL})}]))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    code = refusal("vllm_omni", post("/v1/images/edits", body, content_type=kind))
    assert code in (RefusalCode.BODY_AMBIGUOUS, RefusalCode.BODY_UNREADABLE)


def test_a_form_whose_parts_end_where_two_readers_differ_is_refused() -> None:
    parts = [{"name": "prompt", "text": f"harbour\r\n--{BOUNDARY}x\r\n\r\nat dawn"}]
    request = multipart_post("/v1/images/edits", parts)
    assert refusal("vllm_omni", request) == RefusalCode.BODY_AMBIGUOUS


def test_a_body_of_millions_of_values_is_refused_before_it_takes_memory() -> None:
    request = post("/v1/set_lora", b'{"a": [' + b"[]," * 2_000_000 + b"[]]}")
    assert refusal("sglang", request) == RefusalCode.BODY_UNREADABLE


def test_an_urlencoded_form_is_read() -> None:
    form = (
        b"prompt=x&lora=%7B%22name%22%3A%22b%22%2C%22path%22%3A%22%2Floras%2Fevil.safetensors%22%7D"
    )
    kind = "application/x-www-form-urlencoded"
    assert found("vllm_omni", post("/v1/images/edits", form, content_type=kind)) == [EVIL]
    json_in_form = post("/v1/images/edits", SET, content_type=kind)
    assert refusal("vllm_omni", json_in_form) == RefusalCode.BODY_AMBIGUOUS
    packed = post("/v1/images/edits", zlib.compress(form), content_type=kind)
    packed = replace(packed, headers={**packed.headers, "content-encoding": "deflate"})
    assert refusal("vllm_omni", packed) == RefusalCode.BODY_AMBIGUOUS
