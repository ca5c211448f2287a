"""ComfyUI's own templates pass the door, and those with a LoRA are read."""

from __future__ import annotations

from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusedRequestError
from testkit import comfyui_templates as templates
from testkit.comfyui_prompts import as_prompt
from tests.server.intercept.bodies import extractor, post

pytestmark = pytest.mark.skipif(
    not templates.installed(),
    reason="comfyui-workflow-templates-json is missing; scripts/setup.sh dev installs it",
)


def test_every_template_passes_and_those_with_a_lora_are_read() -> None:
    server = extractor("comfyui")
    wrong: dict[str, object] = {}
    with_loras = 0
    for name in templates.names():
        expected = templates.loras(name)
        with_loras += bool(expected)
        try:
            found = server.extract(post("/prompt", templates.prompt(name))).adapters
        except RefusedRequestError as error:
            wrong[name] = error.message
            continue
        read: dict[str, set[float]] = {}
        for one in found:
            own = read.setdefault((one.path or "").removeprefix("/loras/"), set())
            # Of two models the graph may run one alone, and then the other has a strength of 0.
            own |= {number for use in one.strengths for number in (use.denoiser, use.text_encoder)}
            own.discard(0.0)
        if set(read) != set(expected) or any(
            not read[lora] <= given or bool(read[lora]) != bool(given)
            for lora, given in expected.items()
        ):
            wrong[name] = (expected, read)
    count = len(templates.names())
    print(f"{count} templates: {count - with_loras} without a LoRA, {with_loras} with one or more")
    assert count > 600
    assert with_loras > 80
    assert wrong == {}


def test_a_file_that_no_template_names_is_read_in_each_that_has_an_unknown_node() -> None:
    """What lets the templates pass lets no node pass that could load a LoRA."""
    server = extractor("comfyui")
    for name in templates.spread(40):
        body = templates.prompt(name)
        key = next(iter(body["prompt"]))
        hidden = {"class_type": "Mystery", "inputs": {"weights": "evil.safetensors"}}
        found = server.extract(post("/prompt", {"prompt": {**body["prompt"], "hidden": hidden}}))
        assert "/loras/evil.safetensors" in {one.path for one in found.adapters}, (name, key)
        at = [one.path for one in found.adapters].index("/loras/evil.safetensors")
        assert (found.places[at], found.holders[at]) == ("/prompt/hidden/inputs/weights", "Mystery")


def node(number: int, kind: str, values: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "type": kind, "mode": 0, "widgets_values": values or [], **more}


def link_in(name: str, kind: str, link: int, *, widget: bool = False) -> dict[str, Any]:
    given: dict[str, Any] = {"name": name, "type": kind, "link": link}
    return {**given, "widget": {"name": name}} if widget else given


OUT = [{"name": "MODEL", "type": "MODEL", "links": [1]}]


def chain(lora: dict[str, Any]) -> dict[str, Any]:
    """A model, a node that may be a LoRA's, and a sampler."""
    return {
        "nodes": [
            node(1, "UNETLoader", ["m.safetensors", "default"], outputs=OUT),
            {**lora, "inputs": [link_in("model", "MODEL", 1)], "outputs": OUT},
            node(3, "KSampler", [5, "randomize", 20, 7], inputs=[link_in("model", "MODEL", 2)]),
            node(4, "MarkdownNote", ["<lora:evil:1>"]),
        ],
        "links": [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 0, 3, 0, "MODEL"]],
    }


def test_a_workflow_becomes_what_the_page_sends() -> None:
    made = as_prompt(chain(node(2, "LoraLoaderModelOnly", ["ink.safetensors", 0.5])))
    assert {key: (one["class_type"], one["inputs"]) for key, one in made.items()} == {
        "1": ("UNETLoader", {"unet_name": "m.safetensors", "weight_dtype": "default"}),
        "2": (
            "LoraLoaderModelOnly",
            {"lora_name": "ink.safetensors", "strength_model": 0.5, "model": ["1", 0]},
        ),
        "3": ("KSampler", {"seed": 5, "steps": 20, "cfg": 7, "model": ["2", 0]}),
    }


@pytest.mark.parametrize(("mode", "model"), [(2, None), (4, ["1", 0])])
def test_muted_and_bypassed_nodes_are_left_out(mode: int, model: object) -> None:
    made = as_prompt(chain({**node(2, "LoraLoaderModelOnly", ["x.safetensors", 1]), "mode": mode}))
    assert set(made) == {"1", "3"}
    assert made["3"]["inputs"].get("model") == model


def test_links_go_through_reroutes_and_a_primitive_is_its_value() -> None:
    workflow = chain(node(2, "Reroute"))
    workflow["nodes"][2]["inputs"].append(link_in("steps", "INT", 3, widget=True))
    workflow["nodes"].append(node(5, "PrimitiveNode", [33, "fixed"]))
    workflow["links"].append([3, 5, 0, 3, 1, "INT"])
    made = as_prompt(workflow)
    assert set(made) == {"1", "3"}
    assert made["3"]["inputs"] == {"seed": 5, "steps": 33, "cfg": 7, "model": ["1", 0]}


def test_a_subgraph_is_put_in_the_place_of_its_instance_with_the_values_of_that() -> None:
    inner = node(7, "LoraLoaderModelOnly", ["inner.safetensors", 0.5])
    inner["inputs"] = [
        link_in("model", "MODEL", 1),
        link_in("lora_name", "COMBO", 2, widget=True),
    ]
    names = [("model", "MODEL", 1), ("lora_name", "COMBO", 2)]
    subgraph = {
        "id": "sub",
        "nodes": [inner],
        "inputs": [{"name": n, "type": t, "linkIds": [link]} for n, t, link in names],
        "outputs": [{"name": "MODEL", "type": "MODEL", "linkIds": [3]}],
        "links": [
            _object(1, -10, 0, 7, 0),
            _object(2, -10, 1, 7, 1),
            _object(3, 7, 0, -20, 0),
        ],
    }
    workflow = chain(node(2, "sub", ["outer.safetensors"]))
    made = as_prompt({**workflow, "definitions": {"subgraphs": [subgraph]}})
    assert set(made) == {"1", "2:7", "3"}
    assert made["3"]["inputs"]["model"] == ["2:7", 0]
    expected = {"model": ["1", 0], "lora_name": "outer.safetensors", "strength_model": 0.5}
    assert made["2:7"]["inputs"] == expected


def _object(number: int, origin: int, slot: int, target: int, to: int) -> dict[str, int]:
    ends = {"origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": to}
    return {"id": number, **ends}
