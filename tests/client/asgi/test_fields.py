"""What in a body names an adapter, and how strong it is to be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loragate import AsyncAuditClient, Verdict
from loragate.integrations.asgi import (
    LoragateMiddleware,
    adapter_fields,
)
from loragate.testing import FakeAuditServer
from tests.client.asgi.application import App, ask, asked


@pytest.mark.parametrize(
    ("body", "adapters"),
    [
        ({"lora": "a.safetensors"}, [("a.safetensors", None)]),
        ({"lora_path": "/models/a", "lora_scale": 0.5}, [("/models/a", 0.5)]),
        ({"lora_path": "/models/a", "strength": 0.5}, [("/models/a", None)]),
        ({"input": {"lora_weights": "hf://o/n", "x": 1}}, [("hf://o/n", None)]),
        ({"loras": [{"path": "a", "scale": -2}, "b"]}, [("a", -2.0), ("b", None)]),
        ({"lora": {"name": "n", "local_path": "p", "scale": 1}}, [("p", 1.0)]),
        ({"loras": [{"path": "a", "scale": 0.5}] * 4}, [("a", 2.0)]),
        ({"loras": ["a", "b", "a"]}, [("a", 2.0), ("b", None)]),
        (
            {"lora": {"path": "one", "url": "https://h/two"}},
            [("one", None), ("https://h/two", None)],
        ),
        ({"a": [{"b": [{"LoRA_Name": "deep"}]}]}, [("deep", None)]),
        (
            {"lora": {"name": "n", "more": {"extra_lora": "hidden"}}},
            [("n", None), ("hidden", None)],
        ),
        (b'{"lora\\u005fpath": "escaped"}', [("escaped", None)]),
    ],
)
async def test_adapters_are_found_wherever_a_body_names_them(
    guarded: Any, app: App, fake: FakeAuditServer, body: Any, adapters: Any
) -> None:
    assert await ask(guarded, body) == (200, b"picture")
    assert asked(fake) == adapters
    assert app.scopes[0]["loragate"].decided


ADAPTERS = (
    *("hf_lora", "lora_1", "loraPath", "lora_list", "replicate_weights", "LoRAs", "extraLora"),
    *("HF_LORA", "sdxllora", "myLoRA", "lora-path", "lycoris", "locon_path", "weights_url"),
    *("adapterId", "peft_path", "styleLora", "characterLoRAs", "coLora", "loraModelName"),
)
OTHERS = (
    *("exploration", "colorado", "flora", "EXPLORATION", "Colorado", "FLORA", "colorAdjust"),
    *("valorant", "deplorable", "chlorate", "florals", "discoloration", "tailorAll", "Lorain"),
    *("ip_adapter", "t2i_adapter", "controlnet_adapter", "lorazepam", "explorationRate"),
    *("color_adjust", "lora_trigger", "hf_lora_token", "use_lora_prompt"),
)


@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_field_that_is_named_like_an_adapter_is_asked_about_wherever_it_is(
    guarded: Any, fake: FakeAuditServer, name: str
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    multipart = {"content-type": "multipart/form-data; boundary=X"}
    part = f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n\r\na/b\r\n--X--\r\n'
    for body, headers, query in (
        ({"input": [{name: "a/b"}]}, None, b""),
        ({"payload": json.dumps({name: "a/b"})}, None, b""),
        (f"{name}=a%2Fb".encode(), form, b""),
        (f"request[{name}]=a/b".encode(), form, b""),
        (part.encode(), multipart, b""),
        (b"", None, f"{name}=a/b".encode()),
    ):
        fake.calls.clear()
        status, _ = await ask(guarded, body, headers=headers, query_string=query)
        assert (status, asked(fake)) == (200, [("a/b", None)]), (body, query)


@pytest.mark.parametrize("name", OTHERS)
async def test_a_field_that_only_sounds_like_one_is_not_asked_about(
    guarded: Any, fake: FakeAuditServer, name: str
) -> None:
    assert (await ask(guarded, {"input": {name: "a/b"}}))[0] == 200
    assert (await ask(guarded, query_string=f"{name}=a".encode()))[0] == 200
    assert not fake.calls


@pytest.mark.parametrize(
    ("body", "adapters"),
    [
        (
            {"hf_lora": "a", "lora_scale": 0.5, "extra_lora": "b", "extra_lora_scale": 0.7},
            [("a", 0.5), ("b", 0.7)],
        ),
        (
            {"lora_1": "a", "lora_1_scale": 0.3, "lora_2": "b", "lora_scale_2": 0.4},
            [("a", 0.3), ("b", 0.4)],
        ),
        ({"loras": ["a", "b"], "lora_scales": [0.5, 0.6]}, [("a", 0.5), ("b", 0.6)]),
        ({"loraPath": "a", "loraScale": 3}, [("a", 3.0)]),
        ({"loras": {"a": 0.5, "b": 2}}, [("a", 0.5), ("b", 2.0)]),
        ({"lora_scales": {"a": 0.5, "unet": 1}}, [("a", 0.5)]),
        ({"lora": {"source": {"url": "https://h/a"}, "scale": 2}}, [("https://h/a", 2.0)]),
        ({"style": "https://h/a-lora.safetensors"}, [("https://h/a-lora.safetensors", None)]),
        ({"loras": '[{"path": "a", "scale": 2}]'}, [("a", 2.0)]),
    ],
)
async def test_a_strength_belongs_to_the_adapter_with_which_it_shares_its_name(
    guarded: Any, fake: FakeAuditServer, body: Any, adapters: Any
) -> None:
    assert (await ask(guarded, body))[0] == 200
    assert asked(fake) == adapters


async def test_forms_say_strengths_as_texts_and_bring_files_along(
    guarded: Any, fake: FakeAuditServer
) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b"loras[0][path]=a&loras[0][scale]=0.5&loras[1][path]=b&prompt=x"
    assert (await ask(guarded, body, headers=form))[0] == 200
    assert asked(fake) == [("a", 0.5), ("b", None)]
    assert (await ask(guarded, query_string=b"lora=a&lora=b&lora_scale=-2"))[0] == 200
    assert asked(fake) == [("a", -2.0), ("b", -2.0)]
    upload = (
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="s.safetensors"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\nBYTES\r\n"
        b'--X\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--X--\r\n'
    )
    multipart = {"content-type": "multipart/form-data; boundary=X"}
    assert (await ask(guarded, upload, headers=multipart))[0] == 200
    assert [one.inline_bytes for one in fake.calls[-1].request.adapters] == [b"BYTES"]
    fake.default = Verdict.BLOCK
    assert (await ask(guarded, upload, headers=multipart))[0] == 403


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b'{"lora": "a"}', "application/x-www-form-urlencoded", "looks like JSON"),
        (b"lora=%ff", "application/x-www-form-urlencoded", "cannot be read"),
        (b"user=x;lora=a", "application/x-www-form-urlencoded", "plain semicolon"),
        (b"lora=\xff", "application/x-www-form-urlencoded", "not ASCII"),
        (b"lora=a&lora[path]=b", "application/x-www-form-urlencoded", "at once"),
        (b"lora=a&lora_scale=much", "application/x-www-form-urlencoded", "not a number"),
        (b"lora=a&lora_scale=1&lora_scale=3", "application/x-www-form-urlencoded", "2 strengths"),
        (b"hello", "multipart/form-data; boundary=X", "no end"),
        (b"--X--", "multipart/form-data", "no end, or no boundary"),
        (
            b"--X\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--X--",
            "multipart/form-data; boundary=X",
            "encoded",
        ),
        (
            b'--X\r\nContent-Disposition: form-data; name="+AGw-ora"\r\n\r\nevil\r\n--X--',
            "multipart/form-data; boundary=X; charset=utf-7",
            "not in UTF-8",
        ),
        (b"{}", "application/json; charset=utf-8; charset*=utf-7''x", "not in UTF-8"),
        (b'{"prompt": "a <lora:evil:1> cat"}', "application/json", "by a tag"),
        (b'{"lora_1": 0.5}', "application/json", "left out by but_not"),
        (b'{"lora": "a", "lora_scale": 1, "loraScale": 2}', "application/json", "several"),
    ],
)
async def test_a_form_that_can_be_read_in_two_ways_is_refused(
    guarded: Any, app: App, fake: FakeAuditServer, body: bytes, kind: str, why: str
) -> None:
    status, answer = await ask(guarded, body, headers={"content-type": kind})
    assert status == 400
    assert why in answer["message"]
    assert not fake.calls
    assert not app.scopes


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8"])
async def test_a_body_that_says_it_is_in_utf_8_is_read(
    guarded: Any, fake: FakeAuditServer, kind: str
) -> None:
    assert (await ask(guarded, {"lora": "a"}, headers={"content-type": kind}))[0] == 200
    assert asked(fake) == [("a", None)]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        # Starlette takes the first, and finds `lora_path` in the form.
        ("content-type", "application/x-www-form-urlencoded", "application/json"),
        ("Content-Encoding", "gzip", "identity"),
        ("content-length", "26", "26"),
    ],
)
async def test_a_header_that_says_how_a_body_is_read_comes_once(
    guarded: Any, app: App, fake: FakeAuditServer, name: str, first: str, second: str
) -> None:
    body = b'{"a": "&lora_path=/evil&"}'
    headers, again = {name: first}, ((name, second),)
    status, answer = await ask(guarded, body, headers=headers, again=again)
    assert (status, "comes twice" in answer["message"]) == (400, True)
    assert not app.scopes
    assert not fake.calls


async def test_names_can_be_added_and_left_out(
    app: App, audits: AsyncAuditClient, fake: FakeAuditServer
) -> None:
    fields = adapter_fields(also=["Style"], but_not=["lora_help", "prompt"])
    guarded = LoragateMiddleware(app, routes={"/generate": fields}, client=audits)
    body = {"style": "s", "lora_help": "how", "prompt": "<lora:x:1>", "more": {"hf_lora": "h"}}
    assert (await ask(guarded, body))[0] == 200
    assert asked(fake) == [("s", None), ("h", None)]
    with pytest.raises(ValueError, match="'lora' cannot be asked about and be left out"):
        adapter_fields(also=["LoRA"], but_not=["lora"])
    with pytest.raises(ValueError, match="as a list"):
        adapter_fields(also="style")
