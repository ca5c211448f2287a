"""Graphs and messages that cost their reader much, for the servers that read such."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import ROUTES, chunk, framed
from tests.server.intercept.hostile import GRPC, NAMES, Shape, filled, items, members

Graph = Mapping[str, Any]
NAME = "a.safetensors"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def nodes(size: int, make: Callable[[int], Any], **more: Any) -> dict[str, Any]:
    """As many nodes as fit, each made from its number."""
    each = len(json.dumps({"10000": make(10_000)})) + 2
    return {**{str(n): make(n) for n in range(max(2, size // each))}, **more}


def links(size: int, key: str = "9", name: str = "in_{}") -> dict[str, Any]:
    return members(size, name, [key, 0])


def slots(size: int, key: str = "9") -> dict[str, Any]:
    """Links to different outputs of one node."""
    return {f"model_{n}": [key, n] for n in range(max(1, size // 26))}


LORA = node("LoraLoader", lora_name=NAME, model=["m", 0], clip=["m", 1])
SAMPLER = node("KSampler", model=["8", 0], positive=["8", 1])

GRAPHS: Mapping[str, Callable[[int], Graph]] = {
    "many inputs": lambda size: {
        "1": node("LoraLoader", lora_name=NAME, **members(size, "n{}", 1))
    },
    "many names": lambda size: {"1": node("Lora Stack", **members(size, "lora_{}", NAME))},
    "many names and strengths": lambda size: {
        "1": node(
            "Lora Stack",
            **members(size // 2, "lora_{}", NAME),
            **members(size // 2, "strength_{}", 1.0),
        )
    },
    "one strength many times": lambda size: {
        "1": node(
            "Lora Stack",
            lora_1=NAME,
            **{f"strength_{'0' * (n % 90)}{'_' * (n // 90 % 2)}1": 1.0 * n for n in range(180)},
            **members(size, "n{}", 1),
        )
    },
    "strengths for the model and the text encoder": lambda size: {
        "1": node(
            "Lora Stack",
            lora_1=NAME,
            **{f"model_weight_{'0' * n}1": n for n in range(int((size // 2) ** 0.5))},
            **{f"clip_weight_{'0' * n}1": n for n in range(int((size // 2) ** 0.5))},
        )
    },
    "lists of names beside inputs": lambda size: {
        "1": node("Lora Stack", lora=items(size // 2, NAME), **members(size // 2, "n{}", 1))
    },
    "many nodes": lambda size: nodes(
        size, lambda n: node("LoraLoader", lora_name=f"{n}.safetensors")
    ),
    "many samplers": lambda size: nodes(size, lambda _: SAMPLER, **{"8": LORA}),
    "a chain": lambda size: nodes(
        size, lambda n: node("LoraLoader", lora_name=NAME, model=[str(n - 1), 0])
    ),
    "a chain of constants": lambda size: nodes(size, lambda n: node("Reroute", x=[str(n + 1), 0])),
    "a circle": lambda size: nodes(
        size, lambda n: node("Switch", a=[str(n + 1), 0]), **{"0": node("Switch", a=["1", 0])}
    ),
    "many links to one node": lambda size: {
        "8": LORA,
        "9": node("Any Switch", **links(size, "8")),
    },
    "many links to one node of many inputs": lambda size: {
        "8": node("Lora Stacker", **members(size // 2, "lora_{}", NAME)),
        "9": node("Lora Loader", **links(size // 2, "8", "lora_{}")),
    },
    "many links to outputs of one node": lambda size: {
        "8": node("Any Switch", **links(size // 2, "7")),
        "7": LORA,
        "9": node("KSampler", **slots(size // 2, "8")),
    },
    "many links to one class with a long name": lambda size: {
        "8": node(filled("Lora ", size // 2), x=1),
        "9": node("Lora Loader", **links(size // 2, "8")),
    },
    "many links to one long text": lambda size: {
        "8": node("PrimitiveString", value=filled("a ", size // 2)),
        **nodes(size // 2, lambda _: node("Lora Text", text=["8", 0])),
    },
    "many links to one blank text": lambda size: {
        "8": node("PrimitiveString", value=filled(" ", size // 2)),
        **nodes(size // 2, lambda _: node("LoraLoader", lora_name=["8", 0])),
    },
    "texts that double": lambda size: {
        "p": node("PrimitiveString", value=filled("a ", size // 2)),
        **{
            f"d{n}": node(
                "StringConcatenate",
                string_a=[f"d{n - 1}" if n else "p", 0],
                string_b=[f"d{n - 1}" if n else "p", 0],
                delimiter="",
            )
            for n in range(15)
        },
        **nodes(size // 2, lambda n: node("Lora Text", text=[f"d{n % 15}", 0])),
    },
    "texts that are replaced": lambda size: {
        "p": node("PrimitiveString", value=filled("a", size // 2)),
        **nodes(
            size // 2,
            lambda n: node("StringReplace", string=["p", 0], find="a", replace="b"),
        ),
        "t": node("Lora Text", text=["1", 0]),
    },
    "links in links": lambda size: {
        **{str(n): node("Any Switch", **links(size // 20, str(n + 1))) for n in range(20)},
        "x": node("Lora Loader", lora_stack=["0", 0]),
    },
    "many merges": lambda size: nodes(
        size,
        lambda n: node("ModelMergeSimple", model1=[str(n - 1), 0], model2=["8", 0], ratio=0.5),
        **{"8": LORA},
    ),
    "many ways": lambda size: nodes(
        size,
        lambda n: (
            node("LoraLoader", lora_name=f"{n % 60}.safetensors", model=["m", 0])
            if n < 60
            else node(
                "Any Switch", **{f"model{k}": [str((n * 7 + k * 13) % 60), 0] for k in range(5)}
            )
        ),
    ),
    "many samplers of many ways": lambda size: nodes(
        size,
        lambda n: (
            node("LoraLoader", lora_name=f"{n % 60}.safetensors", model=["m", 0])
            if n < 60
            else node(
                "KSampler", **{f"model{k}": [str((n * 7 + k * 13) % 60), 0] for k in range(5)}
            )
        ),
    ),
    "deep objects": lambda size: {
        "1": node("Lora Stack", rows=items(size, {"a": {"b": {"c": NAME}}}))
    },
    "many wildcards": lambda size: {
        "1": node("ImpactWildcardEncode", **members(size, "wildcard_{}", "a __b c"))
    },
    "folders in any letters": lambda size: {
        "1": node(
            filled("Lora", size // 2),
            **{f"{'_' * (n % 2)}folder{n}": "" for n in range(max(1, size // 40))},
        )
    },
    "long keys": lambda size: {filled("k", size): node("LoraLoader", lora_name=NAME)},
    "switches": lambda size: {
        "1": node("CR LoRA Stack", **members(size, "lora_name_{}", NAME), switch_1="Off")
    },
    "files of other models": lambda size: {
        "1": node("CheckpointThing", **members(size, "file_{}", NAME))
    },
    "files of other models beside models": lambda size: {
        "7": node("Thing", **members(size // 4, "in_{}", 1)),
        "8": node("UpscaleThing", **members(size // 4, "file_{}", NAME), **links(size // 4, "7")),
        "9": node("Thing", **links(size // 4, "8")),
    },
    "files that many constants hand on": lambda size: nodes(
        size,
        lambda n: node("Reroute", a=[str(n - 1), 0], b=[str(n - 1), 0], c=NAME),
        **{"0": node("Reroute", a=NAME)},
    ),
    "formulas in formulas": lambda size: nodes(
        size,
        lambda n: node(
            "ComfyMathExpression",
            expression="a+b",
            **{"values.a": [str(n + 1), 0], "values.b": [str(n + 1), 0]},
        ),
        l=node("LoraLoader", lora_name=NAME, strength_model=["0", 0]),
    ),
    "one formula of many numbers": lambda size: {
        "8": node("SimpleMath+", value="a_1", **members(size // 2, "a_{}", 1)),
        **nodes(
            size // 2,
            lambda _: node("LoraLoader", lora_name=NAME, strength_model=["8", 0]),
        ),
    },
    "numbers that grow": lambda size: {
        **nodes(
            size // 2,
            lambda n: node(
                "easy mathInt", operation="multiply", a=[str(n + 1), 0], b=[str(n + 1), 0]
            ),
            **{"9": node("PrimitiveInt", value=10**4000)},
        ),
        "l": node("LoraLoader", lora_name=NAME, strength_model=["0", 0]),
    },
    "rows": lambda size: {
        "1": node(
            "Power Lora Loader (rgthree)",
            **members(size, "lora_{}", {"on": True, "lora": NAME, "strength": 1}),
        )
    },
}


def graph_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    if server not in ("comfyui", "cog"):
        return
    wrap = (
        (lambda graph: {"prompt": graph})
        if server == "comfyui"
        else (lambda graph: {"input": {"workflow": graph}})
    )

    def shape(make: Callable[[int], Graph]) -> Shape:
        return lambda size: HttpRequest(
            "POST", ROUTES[server], "", {}, json.dumps(wrap(make(size))).encode()
        )

    for name, make in GRAPHS.items():
        yield f"a graph of {name}", shape(make)
    if server != "comfyui":
        return
    for name, spell in NAMES.items():
        yield (
            f"a class of {name}",
            shape(
                lambda size, spell=spell: {"1": node(spell(size), text="<a", index=1, lora=NAME)}
            ),
        )
        yield (
            f"an input of {name}",
            shape(lambda size, spell=spell: {"1": node("Lora Loader", **{spell(size): NAME})}),
        )
        yield (
            f"a link by {name}",
            shape(
                lambda size, spell=spell: {
                    "7": LORA,
                    "8": node("KSampler", model=["7", 0], **{spell(size): ["7", 0]}),
                }
            ),
        )
        yield (
            f"many links by {name}",
            shape(
                lambda size, spell=spell: {
                    "7": LORA,
                    "8": node(
                        "KSampler",
                        **{f"{n}_{spell(40)}": ["7", 0] for n in range(max(1, size // 60))},
                    ),
                }
            ),
        )


MESSAGES: Mapping[str, Callable[[int], bytes]] = {
    "small fields": lambda size: b"\x08\x01" * (size // 2),
    "long numbers": lambda size: (b"\x08" + b"\x80" * 9 + b"\x01") * (size // 11),
    "inputs": lambda size: chunk(5, chunk(1, b"a") + chunk(2, b"b")) * (size // 8),
    "parameters": lambda size: b"".join(
        chunk(4, chunk(1, b"lora_%d" % n) + chunk(2, chunk(3, b"/loras/a.safetensors")))
        for n in range(size // 40)
    ),
    "load parameters": lambda size: b"".join(
        chunk(3, chunk(1, b"lora_%d" % n) + chunk(2, chunk(3, b"/loras/a.safetensors")))
        for n in range(size // 40)
    ),
    "files": lambda size: b"".join(
        chunk(3, chunk(1, b"file:%d.safetensors" % n) + chunk(2, chunk(4, b"x")))
        for n in range(size // 40)
    ),
    "messages in messages": lambda size: _nested(size),
    "a raw tensor": lambda size: chunk(1, b"m") + chunk(7, b"x" * size),
}


def _nested(size: int) -> bytes:
    data = b""
    while len(data) < min(size, 20_000):
        data = chunk(5, data)
    return data * max(1, size // 20_000)


def message_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    if server not in ("triton", "kserve"):
        return
    methods = ("ModelInfer", "RepositoryModelLoad") if server == "triton" else ("ModelInfer",)
    for method in methods:
        for name, make in MESSAGES.items():
            yield (
                f"{method} of {name}",
                lambda size, method=method, make=make: HttpRequest(
                    "POST",
                    f"{GRPC}/{method}",
                    "",
                    {"content-type": "application/grpc"},
                    framed(make(size)),
                ),
            )
