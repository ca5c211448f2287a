"""Texts that name LoRAs in all grammars, and whether what a server loads for one is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.grammar_models import (
    NODES,
    PROMPTS,
    Model,
    infotext,
    localai,
    localai_video,
)

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
    [
        "#",
        "\n",
        " ",
        "a cat",
        "|high_noise|",
        "\0",
        "<3",
        "DEF(Z=lora)",
        "DEF(Q=<)",
        "Z",
        "Q",
        "(x:1.2)",
        "@0,0.5@1",
    ]
)
_scraps |= st.sampled_from(["<lora:|high_noise|", ":0.5 or so>"])
_scraps |= st.sampled_from(["<random:", "<comment:>", "<setvar[x]:lora>", "<LoRA[1]:evil>", "\a"])
_whole = st.builds("<lora:{}:{}:{}>".format, _names, *[st.sampled_from(["1", "0", "-2"])] * 2)
texts = st.lists(_tags | _scraps, max_size=7).map("".join) | st.lists(
    _whole | _whole | _tags, min_size=1, max_size=3
).map("\n".join)


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


def lay_out(folder: Path) -> None:
    """Puts the files into a folder of LoRAs."""
    (folder / "styles").mkdir()
    for name in FILES:
        (folder / name).touch()


escaped = st.builds(
    lambda text, letters: "".join(f"\\u{ord(one):04x}" if one in letters else one for one in text),
    texts,
    st.sets(st.sampled_from("<>:lorae.{|")),
)
"""As an infotext may quote a text."""


def readers(folder: Path) -> dict[str, tuple[st.SearchStrategy[str], Callable[[str], int]]]:
    """Every grammar: the texts, and the check that gives how many loads were seen."""
    comfyui = extractor("comfyui", lora_folder=str(folder))
    a1111 = extractor("a1111", lora_folder=str(folder))
    go = extractor("localai", lora_folder=str(folder))

    def by_node(kind: str, key: str, model: Model) -> Callable[[str], int]:
        def check(text: str) -> int:
            node = {"class_type": kind, "inputs": {key: text}}
            return loads_seen(comfyui, post("/prompt", {"prompt": {"7": node}}), text, model)

        return check

    def by_prompt(kind: str, model: Model) -> Callable[[str], int]:
        server = extractor(kind, lora_folder=str(folder))

        def check(text: str) -> int:
            request = post(ROUTES[kind], {"prompt": text})
            return loads_seen(server, request, text, model)

        return check

    def by_go(path: str, model: Model) -> Callable[[str], int]:
        return lambda text: loads_seen(go, post(path, {"prompt": text}), text, model)

    def by_infotext(value: str) -> int:
        text = f'a cat\nSteps: 2, Hires prompt: "{value}", Sampler: Euler, Size: 8x8'
        request = post("/sdapi/v1/txt2img", {"prompt": "a", "infotext": text})
        return loads_seen(a1111, request, text, infotext)

    return {
        **{name: (texts, by_node(*NODES[name])) for name in NODES},
        **{name: (texts, by_prompt(*PROMPTS[name])) for name in PROMPTS},
        "infotext": (escaped, by_infotext),
        "LocalAI": (texts, by_go("/v1/images/generations", localai)),
        "LocalAI's videos": (texts, by_go("/video", localai_video)),
    }
