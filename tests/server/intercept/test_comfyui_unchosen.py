"""What nodes of ComfyUI are sent where no LoRA is chosen, and what some load for it anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusedRequestError
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.grammar_models import lora_manager, rgthree
from tests.server.intercept.test_comfyui_flow import node

FILES = sorted(["NoneLike.safetensors", "a b/ink.safetensors", "none.safetensors", "Chosen.ckpt"])
TAKEN = {"model": ["1", 0], "clip": ["1", 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("loras")
    for name in FILES:
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).touch()
    return made


def paths(folder: Path, *nodes: Any) -> list[str] | None:
    """The files that a graph asks about, below the folder; None where it is refused."""
    graph = {str(number): one for number, one in enumerate(nodes, 1)}
    server = extractor("comfyui", lora_folder=str(folder))
    try:
        adapters = server.extract(post("/prompt", {"prompt": graph})).adapters
    except RefusedRequestError:
        return None
    return [str(one.path).removeprefix(f"{folder}/") for one in adapters]


IMPACT = {"Select to add LoRA": "Select the LoRA to add to the text"}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("ImpactWildcardEncode", {"wildcard_text": "a", "populated_text": "a", **IMPACT}),
        ("WildcardEncode //Inspire", {"wildcard_text": "a", "populated_text": "a", **IMPACT}),
        ("ToDetailerPipe", {"wildcard": "a", **IMPACT}),
        ("Power Prompt (rgthree)", {"prompt": "a", "insert_lora": "CHOOSE"}),
        ("Power Prompt (rgthree)", {"prompt": "a", "insert_lora": "DISABLE LORAS"}),
        ("Efficient Loader", {"ckpt_name": "b.safetensors", "lora_name": "None"}),
        ("CR LoRA Stack", {f"lora_name_{n}": "None" for n in (1, 2, 3)}),
        ("Power Lora Loader (rgthree)", {"lora_1": {"on": False, "lora": "None", "strength": 1}}),
    ],
)
def test_what_pages_send_for_lists_without_a_choice_names_no_lora(
    folder: Path, kind: str, inputs: dict[str, Any]
) -> None:
    assert paths(folder, node("CheckpointLoaderSimple"), node(kind, **TAKEN, **inputs)) == []


_words = st.sampled_from(
    ["", " ", "None", "none", "NONE", "[none]", "ink", "a", "CHOOSE", "Chosen"]
)


@settings(max_examples=60, deadline=None)
@given(name=_words)
def test_rgthree_and_lora_manager_load_what_they_find_for_no_name(folder: Path, name: str) -> None:
    row = {"on": True, "lora": name, "strength": 3}
    power = paths(folder, node("Power Lora Loader (rgthree)", **TAKEN, lora_1=row))
    listed = [{"name": name, "strength": 3, "active": True}]
    managed = paths(folder, node("Lora Loader (LoraManager)", **TAKEN, text="", loras=listed))
    tag = f"<lora:{name}:3>"
    for found, model in ((power, rgthree), (managed, lora_manager)):
        loaded = {path for path, *_ in model(tag, FILES)}
        assert found is None or loaded <= set(found)
        if name.strip().casefold() in ("", "none") and not loaded:
            assert found == []


@pytest.mark.parametrize("kind", ["Lora Loader", "Lora Stacker", "Create Hook LoRA"])
def test_the_text_that_repeats_a_list_of_lora_manager_names_nothing_once_more(
    folder: Path, kind: str
) -> None:
    listed = [{"name": "ink", "strength": 1, "active": True}]
    inputs = {"text": "<lora:ink:1> <lora:Chosen:1>", "loras": {"__value__": listed}}
    assert paths(folder, node(f"{kind} (LoraManager)", **inputs)) == ["a b/ink.safetensors"]
