"""A file that a request names in several places is replaced in all of them, or in none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.intercept.bodies import ROUTES, extractor, multipart, multipart_post, post
from tests.server.intercept.decoys import DECOYS, drawn_from, loader

SHARED = "/loras/audited/0a.safetensors"
REPLACED = [kind for kind, (server, _) in sorted(DECOYS.items()) if server != "cog"]
"""Decoys for servers that can be told of another file; cog is asked for addresses."""


def rewritten(server: str, path: str, body: Any) -> Any:
    request = post(path, body)
    found = extractor(server).extract(request).adapters
    new = extractor(server).rewrite(request, dict.fromkeys(range(len(found)), SHARED))
    return None if new is None else json.loads(new)


def test_a_tag_of_both_passes_is_replaced_in_both() -> None:
    body = {"prompt": "a <lora:evil:1> b", "hr_prompt": "<lora:evil:0.5>", "enable_hr": True}
    assert len(extractor("a1111").extract(post(ROUTES["a1111"], body)).adapters) == 1
    assert rewritten("a1111", ROUTES["a1111"], body) == {
        "prompt": "a <lora:0a:1> b",
        "hr_prompt": "<lora:0a:0.5>",
        "enable_hr": True,
    }


def test_a_file_for_two_samplers_is_replaced_for_both() -> None:
    graph = drawn_from("1", **{"1": loader("evil", 1.0), "2": loader("evil", 1.0)})
    graph["7"] = {"class_type": "KSampler", "inputs": {"model": ["2", 0], "positive": ["6", 0]}}
    new = rewritten("comfyui", "/prompt", {"prompt": graph})["prompt"]
    names = {new[key]["inputs"]["lora_name"] for key in ("1", "2")}
    assert names == {"audited/0a.safetensors"}


@pytest.mark.parametrize("kind", REPLACED)
def test_what_may_be_left_out_is_replaced_like_what_is_loaded(kind: str) -> None:
    server, body = DECOYS[kind]
    new = rewritten(server, ROUTES[server], body)
    assert "bomb" not in json.dumps(new)
    assert json.dumps(new).count("0a") == json.dumps(body).count("bomb")


def test_an_install_that_names_its_file_twice_is_rewritten_in_both_places_or_not_at_all() -> None:
    path = "/api/v2/models/install"
    twice = {"source": "/loras/evil.safetensors", "config": {"path": "/loras/evil.safetensors"}}
    assert rewritten("invokeai", path, twice) == {"source": SHARED, "config": {"path": SHARED}}
    query = f"{path}?source=/loras/evil.safetensors"
    assert rewritten("invokeai", query, twice) is None


NAMED = {
    "a1111": {"prompt": "a <lora:evil:1>"},
    "fooocus": {"prompt": "a <lora:evil:1>"},
    "localai": {"prompt": "a <lora:evil:1>"},
    "swarmui": {"session_id": "s", "prompt": "a <lora:evil:1>"},
}
"""Requests that name a file below the folder of a server, as its texts do."""


@pytest.mark.parametrize("server", sorted(NAMED))
@pytest.mark.parametrize(
    "copy",
    ["/elsewhere/0a.safetensors", "/lorasaudited/0a.safetensors", "/loras/0:a,b>c<=.safetensors"],
)
def test_a_copy_that_a_server_cannot_be_told_of_is_never_named(server: str, copy: str) -> None:
    request = post(ROUTES[server], NAMED[server])
    assert extractor(server).extract(request).adapters
    assert extractor(server).rewrite(request, {0: SHARED}) is not None
    assert extractor(server).rewrite(request, {0: copy}) is None


def test_a_prompt_in_a_form_is_rewritten_in_its_field() -> None:
    parts = [
        {"name": "image", "file_name": "a.png", "text": "picture <lora:noise:1>"},
        {"name": "prompt", "text": "a harbour <lora:evil:0.5>"},
    ]
    request = multipart_post("/v1/images/inpainting", parts)
    new = extractor("a1111").rewrite(request, {0: SHARED})
    parts[1]["text"] = "a harbour <lora:0a:0.5>"
    assert new == multipart(parts)
