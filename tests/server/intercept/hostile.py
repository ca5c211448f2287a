"""Requests that cost their reader much: of each shape one of any size, for every server.

A shape is a function from a size in bytes to a request of about that size.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import BOUNDARY, ROUTES

Shape = Callable[[int], HttpRequest]

FORM_ROUTES = {
    **dict.fromkeys(("vllm_omni", "a1111", "stable_diffusion_cpp"), "/v1/images/edits"),
    "localai": "/v1/images/inpainting",
}
FIELDS = {"localai": "prompt"}
"""Of each server, the field of a form that is read as no other; where none is named, `lora`."""
GRPC = "/inference.GRPCInferenceService"


def filled(unit: str, size: int, begin: str = "", end: str = "") -> str:
    """A text of about `size` characters that repeats `unit`."""
    return begin + unit * max(1, (size - len(begin) - len(end)) // len(unit)) + end


def members(size: int, name: str, value: Any) -> dict[str, Any]:
    """An object of many members, whose names are `name` with the number for `{}`."""
    each = len(json.dumps({name.format(10**5): value})) - 1
    return {name.format(number): value for number in range(max(1, size // each))}


def items(size: int, value: Any) -> list[Any]:
    return [value] * max(1, size // (len(json.dumps(value)) + 2))


def deep(size: int, value: Any) -> Any:
    """Many values, each as deep as is allowed."""
    inner = value
    for _ in range(80):
        inner = {"a": inner}
    return items(size, inner)


TEXTS: Mapping[str, Callable[[int], str]] = {
    "tags within tags": lambda size: filled("<a:", size),
    "tags without end": lambda size: filled("<lora:", size),
    "tags without end but the last": lambda size: filled("<lora:", size, end="x:1>"),
    "tags that end as one": lambda size: filled("<lora:a:1", size, end=">"),
    "tags of every kind": lambda size: filled("<lora:a:1><lyco:b><LORA:c:te=1:unet=2>", size),
    "tags of many LoRAs": lambda size: "".join(f"<lora:n{n}:1>" for n in range(size // 14)),
    "a tag of many numbers": lambda size: filled(":1", size, "<lora:a", ">"),
    "a tag of many names": lambda size: filled(":te=1", size, "<lora:a", ">"),
    "a tag of many signs": lambda size: filled("=", size, "<lora:a:", ">"),
    "a tag of a long number": lambda size: filled("1", size, "<lora:a:", ">"),
    "a tag of a long name": lambda size: filled("n", size, "<lora:", ":1>"),
    "choices in choices": lambda size: filled("{<l|", size),
    "choices of one letter": lambda size: filled("{<|l|o|r|a|:}", size),
    "choices of letters in order": lambda size: filled("<", size // 2, "{") + filled("|l", size),
    "choices at their end": lambda size: filled("<|", size, "{", "{lor"),
    "open choices": lambda size: filled("{", size, "<"),
    "blanks before a choice": lambda size: filled(" ", size, "{<", "x"),
    "blanks in lines": lambda size: filled(" \n", size, "{<", "x"),
    "colons": lambda size: filled(":", size, "{<", "x"),
    "comments": lambda size: filled("#\n", size, "{<"),
    "comments within comments": lambda size: filled("<#", size, "{"),
    "comments that begin tags": lambda size: filled("<#\n", size, "{"),
    "comments behind blanks": lambda size: filled("<#\n  ", size, "{"),
    "a comment of hashes": lambda size: filled("#", size, "{<"),
    "extra arguments without end": lambda size: filled("<sd_cpp_extra_args>", size),
    "extra arguments": lambda size: filled("<sd_cpp_extra_args>a</sd_cpp_extra_args>", size),
    "ends of extra arguments": lambda size: filled("</sd_cpp_extra_args>", size, "<"),
    "wildcards without end": lambda size: filled("__a ", size, "<"),
    "underscores": lambda size: filled("_", size, "<"),
    "words beside underscores": lambda size: filled("__a!", size, "<"),
    "styles": lambda size: filled("<style:", size, end=">"),
    "macros": lambda size: filled("DEF(", size),
    "nodes in texts": lambda size: filled("NODE(", size, "<"),
    "nodes with blanks": lambda size: filled("NODE ", size, "<"),
    "escapes": lambda size: filled("\\u003c", size),
    "quoted fields": lambda size: filled('Hires prompt: "\\u003c', size),
    "fields of networks": lambda size: filled("AddNet Model 1", size),
    "lines": lambda size: filled("\n", size, "<"),
    "letters of other alphabets": lambda size: filled("ßŁ\u0130", size // 2, "{<"),
    "angles": lambda size: filled("<", size),
    "JSON in a text": lambda size: filled('{"a":[1,', size),
    "JSON in JSON in a text": lambda size: json.dumps(json.dumps(filled('{"', size // 4))),
    "blanks": lambda size: filled(" ", size),
    "a URL": lambda size: filled("%2e/", size, "https://huggingface.co/"),
    "nulls": lambda size: filled("\0", size),
    "bars": lambda size: filled("|", size, "<lora:a:1>"),
    "a tag of a long number in blanks": lambda size: filled(" ", size, "<lora:a:", ">"),
    "tags without names": lambda size: filled("<lora::", size, end=">"),
}
"""Texts, for every place where a server reads one."""

NAMES: Mapping[str, Callable[[int], str]] = {
    "digits": lambda size: filled("1", size, "lora_", "x"),
    "zeros": lambda size: filled("0", size, "lora_", "x"),
    "conditions": lambda size: filled("1", size, "clip", "x"),
    "conditions by words": lambda size: filled("_to", size, "clip", "x"),
    "strengths": lambda size: filled("_strength", size, "lora", "!"),
    "cycles": lambda size: filled("_cycle", size, "lora", "!"),
    "parts": lambda size: filled("_text", size, "lora", "!"),
    "loras": lambda size: filled("lora", size, end="!"),
    "flora": lambda size: filled("flora", size, end="!"),
    "wildcards": lambda size: filled("Wildcard", size, end="\n"),
    "weights": lambda size: filled("_weights", size, "lora", "!"),
    "blanks": lambda size: filled(" ", size, "lora", "(LoraManager)!"),
    "letters": lambda size: filled("a", size),
}
"""Names of members and classes, for every place where a server looks at one."""


def _post(server: str, value: Any, path: str = "") -> HttpRequest:
    return HttpRequest("POST", path or ROUTES[server], "", {}, json.dumps(value).encode())


def _of(server: str, make: Callable[[int], Any], path: str = "") -> Shape:
    return lambda size: _post(server, make(size), path)


def _raw(server: str, make: Callable[[int], str], path: str = "", **headers: str) -> Shape:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda size: HttpRequest(
        "POST", path or ROUTES[server], "", named, make(size).encode("utf-8", "replace")
    )


def _with(server: str, wrap: Callable[[Any], Any], make: Callable[[int], Any]) -> Shape:
    return lambda size: _post(server, wrap(make(size)))


def in_arguments(value: Any) -> dict[str, str]:
    return {"prompt": f"<sd_cpp_extra_args>{json.dumps(value)}</sd_cpp_extra_args>"}


HOLDERS: Mapping[str, tuple[Callable[[Any], Any], ...]] = {
    "sglang": (lambda value: {"lora_nickname": "x", "lora_path": value},),
    "vllm_omni": (
        lambda value: {"lora": {"name": "x", "path": value}},
        lambda value: {"prompt": value},
    ),
    "comfyui": (
        lambda value: {"prompt": {"1": {"class_type": "Lora Text", "inputs": {"text": value}}}},
        lambda value: {
            "prompt": {"1": {"class_type": "PCLazyLoraLoader", "inputs": {"text": value}}}
        },
        lambda value: {
            "prompt": {"1": {"class_type": "LoraLoader", "inputs": {"lora_name": value}}}
        },
        lambda value: {
            "prompt": {"1": {"class_type": "MultiLoraLoader-7", "inputs": {"text": value}}}
        },
        lambda value: {
            "prompt": {
                "1": {"class_type": "ImpactWildcardEncode", "inputs": {"wildcard_text": value}}
            }
        },
    ),
    "a1111": (
        lambda value: {"prompt": value},
        lambda value: {"infotext": value},
        lambda value: {"override_settings": {"sd_lora": value}},
    ),
    "stable_diffusion_cpp": (
        lambda value: {"prompt": value},
        lambda value: {"lora": [{"path": value}]},
        lambda value: {"lora": value},
        lambda value: in_arguments({"lora": value}),
        lambda value: in_arguments({"lora": [{"path": value}]}),
        lambda value: in_arguments({"prompt": value}),
    ),
    "localai": (
        lambda value: {"prompt": value},
        lambda value: {"prompt": [value, "<lora:a:1>"], "negative_prompt": "a"},
        lambda value: {"note": value},
    ),
    "swarmui": (
        lambda value: {"prompt": value},
        lambda value: {"loras": value},
        lambda value: {"loras": "a", "loraweights": value},
        lambda value: {"note": value},
    ),
    "fooocus": (
        lambda value: {"prompt": value},
        lambda value: {"loras": [{"model_name": value}]},
    ),
    "invokeai": (lambda value: {"source": value},),
    "xinference": (
        lambda value: {"peft_model_config": {"lora_list": value}},
        lambda value: {"launch": value},
    ),
    "triton": (lambda value: {"parameters": {"lora": value}},),
    "kserve": (
        lambda value: {"parameters": {"lora": value}},
        lambda value: {"inputs": [{"name": value, "datatype": "BYTES", "data": []}]},
    ),
    "cog": (
        lambda value: {"input": {"lora_weights": value}},
        lambda value: {"input": {"prompt": value}},
        lambda value: {"input": {"workflow_json": value}},
    ),
    "declarative": (lambda value: {"lora": value},),
}
"""Where servers take a text or a value."""


READERS_OF_TEXT = frozenset({"a1111", "comfyui", "stable_diffusion_cpp", "localai", "swarmui"})


def text_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    """Texts only cost where they are read as such; elsewhere they are too long for a reference."""
    for number, wrap in enumerate(HOLDERS[server]):
        for name, make in TEXTS.items() if server in READERS_OF_TEXT or not number else ():
            yield f"{name}, {number}", _with(server, wrap, make)


def value_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    """Lists and objects in the place of a text, and long names in the place of short ones."""
    shapes: Mapping[str, Callable[[int], Any]] = {
        "many texts": lambda size: items(size, "a"),
        "many files": lambda size: items(size, "/loras/a.safetensors"),
        "many prompts": lambda size: items(size, "<lora:a:1>"),
        "many LoRAs": lambda size: members(size, "lora_{}", "/loras/a.safetensors"),
        "many LoRAs and strengths": lambda size: {
            **members(size // 2, "lora_{}", "/loras/a.safetensors"),
            **members(size // 2, "lora_{}_scale", 1),
        },
        "many strengths": lambda size: {
            "lora_1": "/loras/a.safetensors",
            **members(size, "scale_{}", 1),
        },
        "many objects of LoRAs": lambda size: items(
            size, {"name": "a", "path": "/loras/a.safetensors", "scale": 1}
        ),
        "deep objects": lambda size: deep(size, "/loras/a.safetensors"),
        "lists in lists": lambda size: items(size, [[]]),
        "numbers": lambda size: items(size, 1),
        "huge numbers": lambda size: items(size, 10**4000),
        "fractions": lambda size: items(size, 1.2345678901234567e300),
        "empty objects": lambda size: items(size, {}),
        "nulls": lambda size: items(size, None),
    }
    for number, wrap in enumerate(HOLDERS[server]):
        for name, make in shapes.items():
            yield f"{name}, {number}", _with(server, wrap, make)
    for name, spell in NAMES.items():
        for number, wrap in enumerate(HOLDERS[server]):
            yield (
                f"a name of {name}, {number}",
                _with(server, wrap, lambda size, spell=spell: {spell(size): "a"}),
            )
            yield (
                f"a name of {name} over many texts, {number}",
                _with(
                    server,
                    wrap,
                    lambda size, spell=spell: {spell(size // 2): items(size // 2, "a")},
                ),
            )


def body_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    """What every reader of JSON has to get through before it knows what stands there."""
    yield "opening brackets", _raw(server, lambda size: filled("[", size))
    yield "opening objects", _raw(server, lambda size: filled('{"a":', size))
    yield (
        "deep brackets",
        _raw(server, lambda size: filled("[" * 99 + "]" * 99 + ",", size, "[", "[]]")),
    )
    yield "blanks", _raw(server, lambda size: filled(" ", size, "{", "}"))
    yield "escaped halves", _raw(server, lambda size: filled("\\ud800", size, '{"a":"', '"}'))
    yield "escaped pairs", _raw(server, lambda size: filled("\\ud83d\\ude00", size, '{"a":"', '"}'))
    yield "one name many times", _raw(server, lambda size: filled('"a":1,', size, "{", '"a":1}'))
    yield "digits", _raw(server, lambda size: filled("9", size, '{"a":', "}"))
    yield "a fraction", _raw(server, lambda size: filled("9", size, '{"a":0.', "}"))
    yield "an open text", _raw(server, lambda size: filled("a", size, '{"a":"'))
    yield "backslashes", _raw(server, lambda size: filled("\\\\", size, '{"a":"', '"}'))
    yield "many names", _of(server, lambda size: members(size, "n{}", 1))
    for kind in ("gzip", "deflate"):
        pack = gzip.compress if kind == "gzip" else zlib.compress
        yield (
            f"packed with {kind}",
            lambda size, pack=pack, kind=kind: HttpRequest(
                "POST",
                ROUTES[server],
                "",
                {"content-encoding": kind},
                pack(json.dumps(items(size, "<lora:a:1>")).encode()),
            ),
        )
    for name, unit in (
        ("quotes", '"'),
        ("options", "; a=1"),
        ("blanks", "; "),
        ("commas", ";a=\\"),
    ):
        yield (
            f"a long content type of {name}",
            lambda size, unit=unit: HttpRequest(
                "POST",
                ROUTES[server],
                "",
                {"content-type": filled(unit, size, "multipart/form-data")},
                b"{}",
            ),
        )
    yield (
        "a long query",
        lambda size: HttpRequest("POST", ROUTES[server], filled("a=%31&", size), {}, b"{}"),
    )
    yield (
        "a long header",
        lambda size: HttpRequest(
            "POST",
            ROUTES[server],
            "",
            {"connection": filled(",", size), "x": filled("a", size)},
            b"{}",
        ),
    )


def form_shapes(server: str) -> Iterator[tuple[str, Shape]]:
    if server not in FORM_ROUTES:
        return
    path = FORM_ROUTES[server]
    multi = f"multipart/form-data; boundary={BOUNDARY}"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"\r\n\r\n'
    part = head + f"x\r\n--{BOUNDARY}\r\n"

    def parts(size: int) -> str:
        each = head + "x\r\n"
        return (
            "".join(each.format(f"n{n}") for n in range(size // len(each))) + f"--{BOUNDARY}--\r\n"
        )

    def one(unit: str, end: str = "") -> Callable[[int], str]:
        tail = f"{end}\r\n--{BOUNDARY}--\r\n"
        return lambda size: filled(unit, size, head.format(FIELDS.get(server, "lora")), tail)

    multipart: Mapping[str, Callable[[int], str]] = {
        "many parts": parts,
        "a long field": one("a"),
        "line ends": one("\r\n"),
        "half line ends": one("\r"),
        "dashes": one("\r\n--"),
        "near delimiters": one(f"\r\n--{BOUNDARY[:-1]}"),
        "long head": lambda size: filled("a", size, f"--{BOUNDARY}\r\nX: "),
        "many heads": lambda size: filled("a: b\r\n", size, f"--{BOUNDARY}\r\n"),
        "quotes in a head": lambda size: (
            filled('"\\', size, f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=")
            + f"\r\n\r\nx\r\n--{BOUNDARY}--\r\n"
        ),
        "options in a head": lambda size: (
            filled("; a=b", size, f"--{BOUNDARY}\r\nContent-Disposition: form-data")
            + f"\r\n\r\nx\r\n--{BOUNDARY}--\r\n"
        ),
        "preamble": lambda size: filled("a\r\n", size) + part,
        "epilogue": lambda size: one("a")(10) + filled("\r\n", size),
        "JSON": one('[{"lora":'),
        "tags": one("<lora:"),
    }
    for name, make in multipart.items():
        yield f"a form of {name}", _raw(server, make, path, content_type=multi)
    coded: Mapping[str, Callable[[int], str]] = {
        "many fields": lambda size: filled("a=b&", size),
        "separators": lambda size: filled("&", size),
        "escapes": lambda size: filled("%41", size, "lora="),
        "half escapes": lambda size: filled("%", size, "lora="),
        "plus signs": lambda size: filled("+", size, "prompt="),
    }
    kind = "application/x-www-form-urlencoded"
    for name, make in coded.items():
        yield f"a coded form of {name}", _raw(server, make, path, content_type=kind)
