"""Requests to LocalAI that are odd on purpose, each with what its source makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import BOUNDARY, extractor, multipart, multipart_post, post
from tests.server.intercept.test_unknown_routes import opening
from tests.server.intercept.verdicts import EVIL, found, refusal

PICTURES, VIDEO, INPAINTING = "/v1/images/generations", "/video", "/v1/images/inpainting"
TAG = "<lora:evil:1>"
XML = f"<VideoRequest><Model>m</Model><Prompt>{TAG.replace('<', '&lt;')}</Prompt></VideoRequest>"


def picture(**members: Any) -> HttpRequest:
    return post(PICTURES, members)


def raw(text: str, path: str = PICTURES, **headers: str) -> HttpRequest:
    return post(path, text.encode(), **headers)


def form(*parts: Mapping[str, str], query: str = "") -> HttpRequest:
    picture = {"name": "image", "file_name": "a.png", "text": "picture"}
    mask = {"name": "mask", "file_name": "b.png", "text": "picture"}
    return multipart_post(f"{INPAINTING}?{query}", [*parts, picture, mask])


@pytest.mark.parametrize(
    "request_",
    [
        picture(prompt=TAG),
        picture(PROMPT=TAG),
        picture(prompt=[TAG]),
        picture(prompt=["a", TAG, "b"]),
        picture(prompt=f"|{TAG}"),
        picture(prompt=f"{TAG}|fog|rain"),
        picture(prompt=f"a\n\t{TAG}>>"),
        picture(prompt="<lora:evil:+1.0e0 and more>"),
        picture(**{"prompt": TAG, "model": "flux", "bac\u212aend": "diffusers"}),
        picture(prompt=TAG, negative_prompt="fog", lora=None, loras=[], lora_scale=""),
        picture(prompt="<lora:evil.safetensors:1>"),
        raw('{"prompt": "\\u003clora:\\u0065vil:1\\u003e"}'),
        raw('\r\n\t {"prompt": "<lora:evil:1>"}\n'),
        raw(f'{{"prompt": "{TAG}"}}', content_type="text/plain"),
        raw(f'{{"prompt": "{TAG}"}}', content_type="application/json; charset=utf-8"),
        post("/images/generations/", {"prompt": TAG}),
        post("/localai/v1/images/generations", {"prompt": TAG}),
        post(PICTURES, {"prompt": TAG}, method="PUT"),
        post(VIDEO, {"prompt": TAG}),
        post(VIDEO, {"Prompt": f"a|b|{TAG}"}),
        post(VIDEO, {"prompt": "<lora:|high_noise|evil:1>"}),
        post(VIDEO, {"prompt": "a", "Negative_Prompt": TAG}),
        form({"name": "prompt", "text": f"a|b|c{TAG}"}),
        form({"name": "prompt", "text": "<lora:|high_noise|evil:1>"}),
        form({"name": "prompt", "file_name": "", "text": TAG}),
        form({"name": "prompt", "file_name": "a.txt", "text": TAG}),
        form({"name": "prompt", "text": TAG}, query="steps=9&x=prompt"),
    ],
    ids=lambda one: f"{one.path} {one.body.decode(errors='replace')[:70]}",
)
def test_a_lora_is_found_however_the_server_is_told_of_it(request_: HttpRequest) -> None:
    assert found("localai", request_) == [EVIL]


def test_a_field_in_other_letters_is_no_field_of_a_form_to_the_server() -> None:
    assert found("localai", form({"name": "Prompt", "text": TAG})) == []
    assert found("localai", form({"name": "prompt", "text": "a"}, query="Prompt=b")) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        # One object that two readers would read in two ways.
        (raw(f'{{"prompt": "a", "prompt": "{TAG}"}}'), "body_ambiguous"),
        (raw(f'{{"prompt": "{TAG}", "prompt": null}}'), "body_ambiguous"),
        (picture(prompt="a", Prompt=TAG), "body_ambiguous"),
        (picture(**{"size": "8x8", "\u017fize": "8x8", "prompt": TAG}), "body_ambiguous"),
        (raw(f'{{"prompt": "a"}} {{"prompt": "{TAG}"}}'), "body_unreadable"),
        (raw(f'{{"prompt": "{TAG}"}}]'), "body_unreadable"),
        (raw(f'\ufeff{{"prompt": "{TAG}"}}'), "body_unreadable"),
        (post(PICTURES, f'{{"prompt": "{TAG}"}}'.encode("utf-16")), "body_unreadable"),
        (raw(f'[{{"prompt": "{TAG}"}}]'), "body_unreadable"),
        (raw('{"prompt": "a", "seed": NaN}'), "body_unreadable"),
        (raw("null"), "body_unreadable"),
        (raw(""), "body_incomplete"),
        # Other types of the body than JSON.
        (raw(XML, VIDEO, content_type="application/xml"), "body_unreadable"),
        (raw(XML, VIDEO, content_type="text/xml; charset=utf-8"), "body_unreadable"),
        (raw(json.dumps({"prompt": XML}), content_type="application/xml"), "body_unreadable"),
        (
            raw(json.dumps({"prompt": "a", "x": XML}), VIDEO, content_type="application/xml+x"),
            "body_unreadable",
        ),
        (raw("prompt=a", content_type="application/x-www-form-urlencoded"), "body_unreadable"),
        (post(INPAINTING, {"prompt": TAG}), "body_unreadable"),
        (
            raw("prompt=a", INPAINTING, content_type="application/x-www-form-urlencoded"),
            "body_unreadable",
        ),
        # Members of other types than the server's.
        (picture(prompt=7), "body_unreadable"),
        (picture(prompt={"text": TAG}), "body_unreadable"),
        (picture(prompt=[[TAG]]), "body_unreadable"),
        (picture(prompt=[TAG, None]), "body_unreadable"),
        (post(VIDEO, {"prompt": [TAG]}), "body_unreadable"),
        (post(VIDEO, {"prompt": "a", "negative_prompt": [TAG]}), "body_unreadable"),
        (picture(prompt=TAG, model=["flux"]), "body_unreadable"),
        # Tags where none is read.
        (picture(prompt="a", negative_prompt=TAG), "adapter_unnamed"),
        (picture(prompt="a", instruction=TAG), "adapter_unnamed"),
        (picture(prompt="a", messages=[{"role": "user", "content": TAG}]), "adapter_unnamed"),
        (picture(prompt=f"a||{TAG}"), "adapter_unnamed"),
        (picture(prompt=f"||{TAG}"), "adapter_unnamed"),
        (picture(prompt=f"\0{TAG}"), "adapter_ambiguous"),
        (post(VIDEO, {"prompt": "a", "params": {"extra": TAG}}), "adapter_unnamed"),
        # LoRAs under names of their own.
        (picture(prompt="a", lora_adapter=EVIL), "adapter_unnamed"),
        (picture(prompt="a", LoRA_Adapters=[EVIL]), "adapter_unnamed"),
        (picture(prompt="a", options=[{"lora_dir": "/tmp"}]), "adapter_unnamed"),
        (post(VIDEO, {"prompt": "a", "params": {"lora_path": EVIL}}), "adapter_unnamed"),
        # Models that come from elsewhere.
        (picture(prompt="a", model="studio/evil-sdxl"), "door_closed"),
        (picture(prompt="a", MODEL="https://example.org/evil.safetensors"), "door_closed"),
        (post(f"{PICTURES}?model=studio%2Fevil", {"prompt": "a"}), "door_closed"),
        (form({"name": "model", "text": "studio/evil"}), "door_closed"),
        (post("/backend/load", {"model": "studio/evil"}), "door_closed"),
        (
            multipart_post("/v1/images/upscale", [{"name": "model", "text": "studio/evil"}]),
            "door_closed",
        ),
        # Forms that Go reads in another way than others.
        (form({"name": "prompt", "text": "a"}, query="prompt=b"), "adapter_ambiguous"),
        (form({"name": "prompt", "text": "a"}, query="prompt"), "adapter_ambiguous"),
        (form({"name": "prompt", "text": "a"}, query="%70rompt=b"), "adapter_ambiguous"),
        (form({"name": "prompt", "text": "a"}, query="prompt=a;b"), "adapter_ambiguous"),
        (
            form(
                {"name": "prompt", "text": "<lora:evil:-1>"},
                {"name": "prompt", "file_name": "", "text": TAG},
            ),
            "adapter_ambiguous",
        ),
        (form({"name": "prompt", "text": "a"}, {"name": "prompt", "text": TAG}), "body_ambiguous"),
        (form({"name": "x\"; name*=utf-8''prompt;y=\"", "text": TAG}), "body_ambiguous"),
        (form({"name": 'x"; Name*0="prompt', "text": TAG}), "body_ambiguous"),
        (
            raw(
                multipart([{"name": "prompt", "text": TAG}]).decode().replace("\r\n", "\n"),
                INPAINTING,
                content_type=f"multipart/form-data; boundary={BOUNDARY}",
            ),
            "body_unreadable",
        ),
        # Paths and methods.
        (post("/v1//images/generations", {"prompt": TAG}), "route_unknown"),
        (post("/v1/images/generation%73%2F", {"prompt": TAG}), "route_unknown"),
        (post("/V1/Images/Generations", {"prompt": TAG}), "route_unknown"),
        (post(PICTURES, {"prompt": TAG}, x_http_method_override="PUT"), "route_unknown"),
        (post("/v1/images/edits", {"prompt": TAG}), "route_unlisted"),
    ],
    ids=lambda one: (
        one if isinstance(one, str) else f"{one.path} {one.body.decode(errors='replace')[:60]}"
    ),
)
def test_what_is_not_plain_is_refused(request_: HttpRequest, code: str) -> None:
    assert refusal("localai", request_) == code


@pytest.mark.parametrize(
    "request_",
    [
        picture(prompt="a harbour"),
        picture(prompt=None),
        picture(prompt=[]),
        picture(),
        picture(prompt="I <3 (this:1.2) {a|b} >_< <b>bold</b> lora: evil"),
        picture(prompt="\uff1clora:evil:1\uff1e"),
        picture(prompt="a|b|c|d", model="flux", n=2, size="8x8", flora="a", explorations=["b"]),
        picture(prompt="a", file="PGxvcmE6", ref_images=["iVBORw0KGgo="]),
        post(VIDEO, {"prompt": "a", "params": {"resolution": "480p"}, "seconds": "4"}),
        form({"name": "prompt", "text": "a|b"}, {"name": "model", "text": "dreamshaper"}),
        multipart_post("/v1/images/upscale", [{"name": "model", "text": "x4"}]),
        post("/v1/backend/load", {"model": "flux"}),
        post("/v1/chat/completions", {"messages": [{"role": "user", "content": TAG}]}),
        post("/v1/chat/completions", {"metadata": {"localai_assistant": "0", "mcp_servers": "a"}}),
        post("/chat/completions", {"metadata": None}),
        post("/v1/realtime/calls", {"sdp": "v=0", "model": "m", "localai_assistant": False}),
        post("/v1/messages", {"messages": []}),
        post("/api/generate", {"prompt": TAG}),
        post("/models/delete/flux"),
        post("/models/toggle-state/flux/disable", method="PUT"),
        post("/api/agents/a", method="DELETE"),
        post("/api/agents/collections/c/search", {"query": TAG}),
        post("/api/agents/skills/a/resources/b/c", method="DELETE"),
        post("/api/models/config-json/flux", method="GET"),
        opening("/v1/responses"),
        opening("/ws/backend-logs/flux"),
        opening("/audio/transformations/stream"),
    ],
    ids=lambda one: f"{one.method} {one.path} {one.body.decode()[:60]}",
)
def test_what_loads_no_lora_passes(request_: HttpRequest) -> None:
    assert found("localai", request_) == []


@pytest.mark.parametrize("value", ["1", "true", "YES", " Yes\n", True, 1, {"a": 1}, "on"])
def test_an_assistant_that_may_install_models_is_a_door(value: Any) -> None:
    for request in (
        post("/v1/chat/completions", {"messages": [], "metadata": {"localai_assistant": value}}),
        post("/chat/completions", {"METADATA": {"localai_assistant": value}}),
        post("/v1/realtime/calls", {"sdp": "v=0", "LocalAI_Assistant": value}),
    ):
        assert refusal("localai", request) == "door_closed"
        assert found("localai", request, allowed_doors=["assistant"]) == []


DOORS = {
    "models": [
        *("/models/apply", "/models/import", "/models/import-uri", "/models/edit/flux"),
        *("/api/models/install/flux", "/api/models/config/flux"),
        "PATCH /api/models/config-json/flux",
    ],
    "backends": [
        *("/backends/apply", "/backends/upgrade/a", "/api/backends/install/a"),
        *("/api/backends/install-external", "/api/backends/upgrade/a"),
        *("/api/nodes/n/backends/install", "/api/nodes/n/backends/upgrade"),
    ],
    "settings": ["/api/settings"],
    "nodes": ["/api/node/register", "/api/nodes/n/approve"],
    "agents": [
        *("/api/agents", "PUT /api/agents/a", "/api/agents/import", "/api/agents/a/chat"),
        *("/api/agents/actions/generate_image/run", "PUT /api/agents/a/resume"),
        *("/api/agents/skills", "PUT /api/agents/skills/a/resources/b", "/api/agents/git-repos"),
        *("/api/agents/git-repos/g/sync", "PUT /api/agents/skills/a/resources/b/c"),
        *("/api/agents/collections/c/upload", "/api/agent/tasks", "PUT /api/agent/tasks/t"),
        *("/api/agent/tasks/t/execute", "/api/agent/jobs/execute"),
    ],
    "training": [
        *("/api/fine-tuning/jobs", "/api/fine-tuning/jobs/j/export", "/api/fine-tuning/datasets"),
        *("/api/quantization/jobs", "/api/quantization/jobs/j/import"),
    ],
    "cors_proxy": ["/api/cors-proxy?url=https%3A%2F%2Fexample.org"],
}


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_door_is_closed_until_it_is_opened_by_its_name(door: str) -> None:
    for line in DOORS[door]:
        method, _, path = line.rpartition(" ")
        request = post(path, {"lora_adapters": [EVIL]}, method=method or "POST")
        assert refusal("localai", request) == "door_closed", line
        others = [name for name in DOORS if name != door]
        assert refusal("localai", request, allowed_doors=others) == "door_closed", line
        assert found("localai", request, allowed_doors=[door]) == [], line


@pytest.mark.parametrize(
    ("request_", "passes"),
    [
        (picture(prompt=TAG, model="flux"), True),
        (picture(prompt=TAG, Model="studio/flux"), True),
        (picture(prompt=TAG, model="flux", **{"n": 2}), True),
        (picture(prompt=TAG), False),
        (picture(prompt=TAG, model=""), False),
        (picture(prompt=TAG, model="Flux"), False),
        (picture(prompt=TAG, model="default"), False),
        (post(f"{PICTURES}?model=flux", {"prompt": TAG}), True),
        (post(f"{PICTURES}?model=other", {"prompt": TAG, "model": "flux"}), False),
        (form({"name": "prompt", "text": TAG}, {"name": "model", "text": "flux"}), True),
        (form({"name": "prompt", "text": TAG}), False),
    ],
    ids=lambda one: str(one) if isinstance(one, bool) else one.body.decode()[:60],
)
def test_where_the_base_is_known_a_request_has_to_name_it(
    request_: HttpRequest, passes: bool
) -> None:
    known = ["flux", "studio/flux"]
    if passes:
        assert found("localai", request_, base_names=known) == [EVIL]
    else:
        assert refusal("localai", request_, base_names=known) == "adapter_ambiguous"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ink", "ink.pt"),
        ("INK", "ink.pt"),
        ("linked", "linked.safetensors"),
        ("gone", "gone.safetensors"),
        ("{}/deep/clay", "deep/clay.gguf"),
        ("{}/deep/clay.gguf", "deep/clay.gguf"),
        ("{}/nothing", "nothing"),
        ("deep/clay", "deep/clay.gguf"),
        ("deep", "refused"),
        ("{}/deep", "refused"),
        ("deep/../ink", "refused"),
        ("deep//clay", "refused"),
        ("ink.", "refused"),
        ("ink.zip", "refused"),
        ("C", "C.safetensors"),
        ("https", "refused"),
    ],
)
def test_a_name_means_what_the_server_finds(tmp_path: Path, name: str, meant: str) -> None:
    (tmp_path / "deep").mkdir()
    for one in ("ink.pt", "deep/clay.gguf", "deep/ink.safetensors"):
        (tmp_path / one).touch()
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "ink.pt")
    (tmp_path / "gone.pt").symlink_to(tmp_path / "nowhere")
    end = "//example.org/a:1" if name == "https" else "1"
    request = picture(prompt=f"<lora:{name.format(tmp_path)}:{end}>")
    try:
        paths = found("localai", request, lora_folder=str(tmp_path))
    except RefusedRequestError:
        assert meant == "refused"
        return
    assert paths == [str(tmp_path / meant)]


def test_a_tag_is_rewritten_so_that_it_means_the_audited_file_and_no_other(tmp_path: Path) -> None:
    audited = str(tmp_path / "audited" / "evil.safetensors")
    server = extractor("localai", lora_folder=str(tmp_path))
    request = post(VIDEO, {"Prompt": "a <lora:|high_noise|evil:1> | <lora:/a/b.pt:2>"})
    body = server.rewrite(request, {0: audited, 1: audited})
    assert body is not None
    assert json.loads(body) == {
        "Prompt": f"a <lora:|high_noise|audited/evil.safetensors:1> | <lora:{audited}:2>"
    }
    assert server.rewrite(request, {0: str(tmp_path / "a:b.pt")}) is None
    assert server.rewrite(request, {0: "/elsewhere/a.pt"}) is None
    named = form({"name": "prompt", "text": TAG})
    assert b"<lora:audited/evil.safetensors:1>" in (server.rewrite(named, {0: audited}) or b"")
    nameless = form({"name": "prompt", "file_name": "", "text": TAG})
    assert server.rewrite(nameless, {0: audited}) is None


def test_an_empty_half_is_a_half() -> None:
    one, other = "<lora:ink:1>", "<lora:clay:1>"
    for text, optional in ((f"{one}|", [False]), (f"{one}|{other}", [False, True])):
        adapters = extractor("localai").extract(picture(prompt=[text, f"{one}||a"])).adapters
        assert [adapter.optional for adapter in adapters] == optional
    (first, second) = extractor("localai").extract(picture(prompt=[f"|{one}", other])).adapters
    assert (first.optional, second.optional) == (True, True)


def test_one_file_for_both_models_of_a_video_is_judged_for_each() -> None:
    text = f"{TAG} <lora:|high_noise|evil:-1>"
    (adapter,) = extractor("localai").extract(post(VIDEO, {"prompt": text})).adapters
    assert [one.denoiser for one in adapter.strengths] == [1.0, -1.0]
    assert not adapter.optional
