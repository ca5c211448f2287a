"""What stable-diffusion.cpp's server reads, what it passes over, and what it may read otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import BOUNDARY, extractor, post
from tests.server.intercept.verdicts import EVIL, found, refusal

SD_CPP = "stable_diffusion_cpp"
TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
NATIVE = "/sdcpp/v1/img_gen"


def arguments(text: str) -> str:
    return f"a <sd_cpp_extra_args>{text}</sd_cpp_extra_args> b"


HIDDEN = arguments('{"lora": [{"path": "/loras/evil.safetensors"}]}')


def form(
    head: str,
    prompt: str = HIDDEN,
    kind: str = f"multipart/form-data; boundary={BOUNDARY}",
    picture: str = 'form-data; name="image[]"; filename="a.png"',
) -> HttpRequest:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {picture}", "", "picture"]
    lines += [f"--{BOUNDARY}", head, "", prompt, f"--{BOUNDARY}--", ""]
    return post(EDITS, "\r\n".join(lines).encode(), content_type=kind)


@pytest.mark.parametrize(
    "request_",
    [
        post(GENERATIONS, {"prompt": HIDDEN}),
        post(GENERATIONS, {"prompt": HIDDEN, "lora": []}),
        post(TXT2IMG, {"prompt": HIDDEN, "lora": {}}),
        post(TXT2IMG, {"prompt": HIDDEN, "lora": None}),
        post(TXT2IMG, {"prompt": HIDDEN, "lora": []}),
        post(IMG2IMG, {"prompt": f"\n{HIDDEN}\n"}),
        post("/images" + GENERATIONS, {"prompt": HIDDEN}),
        post(GENERATIONS, {"prompt": HIDDEN}, content_type="application/x-www-form-urlencoded"),
        post(GENERATIONS, {"prompt": HIDDEN}, content_type="text/plain"),
        post(GENERATIONS, {"prompt": HIDDEN.replace("lora", "l\\u006fra")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("/loras", "\\/loras")}),
        post(GENERATIONS, {"prompt": arguments(f'{{"prompt": "<lora:{EVIL}:1>"}}')}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "evil.safetensors", "name": "good"}]}),
        post(TXT2IMG, {"prompt": "", "lora": [{"path": "evil.safetensors", "multiplier": False}]}),
        post(NATIVE, {"lora": [{"path": "evil.safetensors", "is_high_noise": True}]}),
        post("/sdcpp/v1/vid_gen", {"prompt": "a", "lora": [{"path": "evil.safetensors"}]}),
        post("/sdcpp/v1/%76id_gen", {"prompt": "a", "lora": [{"path": "evil.safetensors"}]}),
        form('Content-Disposition: form-data; name="prompt"'),
        form('content-disposition: form-data; name="prompt"; filename=""'),
        form("Content-Disposition: form-data; name=prompt"),  # as .NET writes it
        form('X-A: b\r\nContent-Disposition: form-data; name="prompt"'),
    ],
    ids=lambda request: f"{request.path} {request.body.decode()[:90]}",
)
def test_a_lora_that_stable_diffusion_cpp_would_load_is_found(request_: HttpRequest) -> None:
    assert found(SD_CPP, request_) == [EVIL]


@pytest.mark.parametrize(
    "request_",
    [
        post(GENERATIONS, {"prompt": HIDDEN + HIDDEN}),
        post(GENERATIONS, {"prompt": arguments("") + HIDDEN}),
        post(GENERATIONS, {"prompt": HIDDEN.replace(": [", ":\n[")}),
        post(GENERATIONS, {"prompt": "<sd_cpp_<sd_cpp_extra_args>" + HIDDEN}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("/loras/", "/loras/../")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("/loras/", "")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("/loras/", "https://a.example.org/")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace(".safetensors", "")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace(".safetensors", ".json")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace(".safetensors", ".safetensors\\u0000.png")}),
        post(GENERATIONS, {"prompt": HIDDEN.replace('{"lora"', '{"lora": [], "lora"')}),
        post(GENERATIONS, {"prompt": arguments('{"Lora": [{"path": "/loras/evil.safetensors"}]}')}),
        post(GENERATIONS, {"prompt": arguments('{"lora": "/loras/evil.safetensors"}')}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("{", "\ufeff{", 1)}),
        post(GENERATIONS, {"prompt": HIDDEN.replace("{", "/**/{", 1)}),
        post(GENERATIONS, {"prompt": HIDDEN}, content_encoding="gz%69p"),
        post(GENERATIONS, {"prompt": "a", "lora": [{"path": "evil.safetensors"}]}),
        post(GENERATIONS, {"prompt": "a", "loras": [{"path": "evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "evil"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": EVIL}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "../evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "sub\\evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": "https://a/evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"Path": "evil.safetensors"}]}),
        post(TXT2IMG, {"prompt": "a", "lora": [{"path": ["evil.safetensors"]}]}),
        post(TXT2IMG, {"prompt": "a", "lora": ["evil.safetensors"]}),
        post(TXT2IMG, {"prompt": "a", "lora": {"path": "evil.safetensors"}}),
        post(TXT2IMG, {"lora": [{"path": "evil.safetensors", "multiplier": "1"}]}),
        post(TXT2IMG, {"lora": [{"path": "evil.safetensors", "multiplier": None}]}),
        post(TXT2IMG, {"lora": [{"path": "evil.safetensors", "multiplier": 1e39}]}),
        post(TXT2IMG, {"lora": [{"path": "evil.safetensors", "multiplier": 3e38}] * 2}),
        post(TXT2IMG, {"lora": [{"path": "evil.safetensors", "is_high_noise": 1}]}),
        post(TXT2IMG, b'{"lora": [], "lora": [{"path": "evil.safetensors"}]}'),
        post(TXT2IMG, b'\xef\xbb\xbf{"lora": [{"path": "evil.safetensors"}]}'),
        post(TXT2IMG, b'[{"lora": [{"path": "evil.safetensors"}]}]'),
        post(EDITS, {"prompt": HIDDEN}),
        form('Content-Disposition: form-data; name="prompt"', kind="multipart/form-data"),
        *(
            form('Content-Disposition: form-data; name="prompt"', kind=kind)
            for kind in (
                f"multipart/form-datas; boundary={BOUNDARY}",
                f"multipart%2Fform-data; boundary={BOUNDARY}",
                f"multipart/form-data; boundary=%2D{BOUNDARY[1:]}",
                f"multipart/form-data; xboundary=other; boundary={BOUNDARY}",
                f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
                f"Multipart/Form-Data; boundary={BOUNDARY}",
            )
        ),
        *(
            form(f"Content-Disposition: form-data; {given}")
            for given in (
                "name=prom;pt",
                "name=a; filename=; name=prompt",
                'name="prompt',
                'name="a"; name="prompt"',
                'name="a"; filename=""; x="; name=prompt; "',
                'x="; name=prompt; "; name="a"; filename="b.png"',
                'name="a"; filename=";x.png"',
                "name=\"prompt\"; filename*=UTF-8''a.png",
                'name="prompt" ',
                'filename=""; name="prompt"',
            )
        ),
        form('Content-Disposition : form-data; name="prompt"'),
        form('Content-Disposition: form-data; name="a"\r\n name="prompt"'),
        form('Content-Disposition: attachment; name="prompt"'),
        form('Content-Disposition: form-data; name="lora"', '[{"path": "evil.safetensors"}]'),
        form('Content-Disposition: form-data; name="prompt"', picture='form-data; name="prompt"'),
        form(
            'Content-Disposition: form-data; name="prompt"',
            picture='form-data; name="prompt"; filename=""',
        ),
    ],
    ids=lambda request: f"{request.path} {request.body.decode()[:300]}",
)
def test_what_stable_diffusion_cpp_may_read_otherwise_is_refused(request_: HttpRequest) -> None:
    assert refusal(SD_CPP, request_) in (
        RefusalCode.ADAPTER_UNNAMED,
        RefusalCode.ADAPTER_AMBIGUOUS,
        RefusalCode.BODY_AMBIGUOUS,
        RefusalCode.BODY_UNREADABLE,
    )


@pytest.mark.parametrize(
    "request_",
    [
        post(NATIVE, {"prompt": HIDDEN, "lora": None}),
        post(NATIVE, {"prompt": "a", "sample_params": {"lora": [{"path": "evil.safetensors"}]}}),
        post(TXT2IMG, {"prompt": "a", "negative_prompt": HIDDEN}),
        post(TXT2IMG, {"prompt": 7, "override_settings": {"sd_lora": "evil"}}),
        post(TXT2IMG, {"prompt": "a <3 {b|c} __d__", "styles": ["e"], "model": "other"}),
        post(TXT2IMG, {"prompt": arguments(""), "use_lora": False, "lora_scale": 0.5}),
        post(TXT2IMG, {"prompt": arguments("[1]"), "script_name": "x/y/z plot"}),
        post(TXT2IMG, {"prompt": "a", "enable_hr": True, "hr_upscaler": "4x_ultra"}),
        post(GENERATIONS, {"prompt": "a </sd_cpp_extra_args>", "flora": ["b"]}),
        form('Content-Disposition: form-data; name="a"', HIDDEN),
        form('Content-Disposition: form-data; name="prompt"; filename="a.png"', HIDDEN),
        form('Content-Disposition: form-data; name="a"; filename="a"; filename*=UTF-8\'\'%C3%A4'),
    ],
    ids=lambda request: f"{request.path} {request.body.decode()[:90]}",
)
def test_what_stable_diffusion_cpp_passes_over_passes(request_: HttpRequest) -> None:
    assert found(SD_CPP, request_) == []


def test_a_path_that_the_server_lists_for_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub\\evil.safetensors").touch()
    request = post(TXT2IMG, {"prompt": "a", "lora": [{"path": "sub/evil.safetensors"}]})
    # Without the other, the server opens what has the backslash.
    (only,) = found(SD_CPP, request, lora_folder=str(tmp_path))
    assert only == f"{tmp_path}/sub\\evil.safetensors"
    (tmp_path / "sub" / "evil.safetensors").touch()
    assert refusal(SD_CPP, request, lora_folder=str(tmp_path)) == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_folder_that_is_called_like_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.safetensors").mkdir()
    named = arguments(f'{{"lora": [{{"path": "{tmp_path}/evil.safetensors"}}]}}')
    assert refusal(SD_CPP, post(GENERATIONS, {"prompt": named})) == RefusalCode.ADAPTER_UNNAMED
    tag = post(TXT2IMG, {"prompt": "<lora:evil.safetensors:1>"})
    assert refusal(SD_CPP, tag, lora_folder=str(tmp_path)) == RefusalCode.ADAPTER_UNNAMED


def test_a_long_block_of_arguments_is_read_and_not_rewritten() -> None:
    items = [{"path": EVIL}, *[{"path": f"/loras/{n}.safetensors"} for n in range(9)]]
    for note, rewritten in (("", True), ("x" * 65_536, False)):
        text = json.dumps({"lora": items, "note": note})
        request = post(GENERATIONS, {"prompt": arguments(text)})
        assert len(found(SD_CPP, request)) == 10
        new = extractor(SD_CPP).rewrite(request, {0: '/audited/"quoted".safetensors'})
        assert (new is not None) is rewritten
        if new is not None:
            again = post(GENERATIONS, new)
            assert found(SD_CPP, again)[0] == '/audited/"quoted".safetensors'


def test_a_file_that_comes_twice_is_replaced_in_both_places() -> None:
    items = [{"path": "evil.safetensors", "multiplier": 0.5}] * 2
    request = post(TXT2IMG, {"prompt": "a", "lora": items})
    (adapter,) = extractor(SD_CPP).extract(request).adapters
    assert (adapter.strength.denoiser, adapter.strength.text_encoder) == (1.0, 1.0)
    new = extractor(SD_CPP).rewrite(request, {0: "/loras/audited/a.safetensors"})
    assert {one["path"] for one in json.loads(new or b"")["lora"]} == {"audited/a.safetensors"}
    assert extractor(SD_CPP).rewrite(request, {0: "/elsewhere/a.safetensors"}) is None


def test_tags_are_words_where_the_settings_say_so() -> None:
    request = post(TXT2IMG, {"prompt": f"<lora:evil:1> {HIDDEN}"})
    assert found(SD_CPP, request) == [EVIL, EVIL]
    assert found(SD_CPP, request, tags_in_prompts=False) == [EVIL]


def test_a_tag_behind_the_arguments_is_rewritten_where_it_stands() -> None:
    request = post(TXT2IMG, {"prompt": f"<lora:one:1> {HIDDEN} <lora:two:1>"})
    new = extractor(SD_CPP).rewrite(
        request, {number: f"/loras/a{number}.safetensors" for number in range(3)}
    )
    assert json.loads(new or b"")["prompt"] == (
        f"<lora:a1.safetensors:1> {HIDDEN.replace('evil', 'a0')} <lora:a2.safetensors:1>"
    )
    parted = post(TXT2IMG, {"prompt": f"<lora:o{arguments('{}')}ne:1>"})
    assert len(found(SD_CPP, parted)) == 1
    assert extractor(SD_CPP).rewrite(parted, {0: "/loras/a.safetensors"}) is None
