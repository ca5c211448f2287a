"""Whatever a text says, nothing that a server loads for it passes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.grammar_models import NODES, PROMPTS, Model, infotext

FILES = sorted(
    [
        "an_evil.safetensors",
        "evil.safetensors",
        "evil_more.safetensors",
        "my.ink.safetensors",
        "red_ink.safetensors",
        "styles/evil.safetensors",
        "styles/Clay.safetensors",
    ]
)
_names = st.sampled_from(
    ["evil", "ev", "evil.safetensors", "styles/evil", "my.ink", "my_ink", "red ink", "clay"]
) | st.sampled_from(["", ".", "styles/", "a b", "gone/evil", "Evil.ckpt", "safetensors"])
_numbers = st.sampled_from(
    ["1", "0", "-2", "0.5", ".5", "+1", "te=0", "unet=2", "x", "", "1.", "1e"]
)
_tags = st.builds(
    lambda kind, name, numbers: f"<{kind}:{':'.join([name, *numbers])}>",
    st.sampled_from(["lora", "lora", "lora", "LoRA", "lyco", "loractl", "Z", "x"]),
    _names,
    st.lists(_numbers, max_size=3),
)
_scraps = st.sampled_from(
    ["<", ">", ":", "{", "|", "}", "lora", "<lo", "ra:", "<lora:", "evil:1>", "0.5::", "2$$", "$$"]
) | st.sampled_from(
    ["#", "\n", " ", "a cat", "<3", "DEF(Z=lora)", "DEF(Q=<)", "Z", "Q", "(x:1.2)", "@0,0.5@1"]
)
_whole = st.builds("<lora:{}:{}:{}>".format, _names, *[st.sampled_from(["1", "0", "-2"])] * 2)
texts = st.lists(_tags | _scraps, max_size=7).map("".join) | st.lists(
    _whole | _whole | _tags, min_size=1, max_size=3
).map("\n".join)
thorough = settings(
    deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("loras")
    (made / "styles").mkdir()
    for name in FILES:
        (made / name).touch()
    return made


def loads_seen(server: ImageServer, request: HttpRequest, text: str, model: Model) -> int:
    """Every load is found at its strengths, or the request refused; how many were found."""
    try:
        loads = [one for one in model(text, FILES) if one[1] or one[2]]
    except ValueError:  # breaks in the server as well
        return 0
    try:
        adapters = server.extract(request).adapters
    except RefusedRequestError:
        return 0
    seen = {
        (one.path, each.denoiser, each.text_encoder) for one in adapters for each in one.strengths
    }
    folder = server.lora_folder  # type: ignore[attr-defined]
    for path, denoiser, encoder in loads:
        assert (f"{folder}/{path}", denoiser, encoder) in seen, (text, path, denoiser, encoder)
    return len(loads)


@pytest.mark.parametrize("name", sorted(NODES))
def test_what_a_pack_of_nodes_loads_for_a_text_is_found_or_refused(folder: Path, name: str) -> None:
    kind, key, model = NODES[name]
    server = extractor("comfyui", lora_folder=str(folder))
    found = 0

    @thorough
    @given(text=texts)
    def check(text: str) -> None:
        nonlocal found
        node = {"class_type": kind, "inputs": {key: text}}
        found += loads_seen(server, post("/prompt", {"prompt": {"7": node}}), text, model)

    check()
    assert found >= 5


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_what_a_server_loads_for_a_prompt_is_found_or_refused(folder: Path, name: str) -> None:
    server = extractor("a1111", lora_folder=str(folder))
    found = 0

    @thorough
    @given(text=texts)
    def check(text: str) -> None:
        nonlocal found
        request = post("/sdapi/v1/txt2img", {"prompt": text})
        found += loads_seen(server, request, text, PROMPTS[name])

    check()
    assert found >= 5


def test_what_a_quoted_value_of_an_infotext_loads_is_found_or_refused(folder: Path) -> None:
    server = extractor("a1111", lora_folder=str(folder))
    found = 0
    escaped = st.builds(
        lambda text, letters: "".join(
            f"\\u{ord(one):04x}" if one in letters else one for one in text
        ),
        texts,
        st.sets(st.sampled_from("<>:lorae.{|")),
    )

    @thorough
    @given(value=escaped)
    def check(value: str) -> None:
        nonlocal found
        text = f'a cat\nSteps: 2, Hires prompt: "{value}", Sampler: Euler, Size: 8x8'
        request = post("/sdapi/v1/txt2img", {"prompt": "a", "infotext": text})
        found += loads_seen(server, request, text, infotext)

    check()
    assert found >= 5


@given(text=st.lists(st.sampled_from(["<3", ">_<", "{a|b}", "{2$$x|y}", " cat", "(b:1.2)"])))
def test_choices_and_hearts_without_the_letters_of_a_tag_pass(text: list[str]) -> None:
    prompt = " ".join(text)
    for kind in ("CLIPTextEncode", "ImpactWildcardEncode", "PCLazyTextEncode"):
        node = {"class_type": kind, "inputs": {"text": prompt, "wildcard_text": prompt}}
        request = post("/prompt", {"prompt": {"7": node}})
        assert extractor("comfyui").extract(request).adapters == ()
    request = post("/sdapi/v1/txt2img", {"prompt": prompt})
    assert extractor("a1111").extract(request).adapters == ()
