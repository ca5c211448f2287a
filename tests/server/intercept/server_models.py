"""What image servers themselves do with a request: small models, written from their sources.

They read as leniently as the servers do, share no code with the extractors, and say which
references a server would load. What they name, an extractor has to find or refuse.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest


def starlette_json(request: HttpRequest) -> Any:
    """`await request.json()`: bytes to json.loads, whatever type and coding the headers say."""
    return json.loads(request.body)


def aiohttp_json(request: HttpRequest) -> Any:
    """`await request.json()`: content coding undone, text by the charset of the type."""
    body = request.body
    coding = request.header("content-encoding").lower()
    if coding == "gzip":
        body = gzip.decompress(body)
    elif coding == "deflate":
        body = zlib.decompress(body)
    charset = re.search(r"charset=([\w-]+)", request.header("content-type"))
    return json.loads(body.decode(charset[1] if charset else "utf-8"))


def sglang(request: HttpRequest) -> Iterator[str]:
    if request.path != "/v1/set_lora":
        return
    value = starlette_json(request).get("lora_path")
    yield from [value] if isinstance(value, str) else value or []


def vllm_omni(request: HttpRequest) -> Iterator[str]:
    if request.path != "/v1/images/generations":
        return
    lora = starlette_json(request).get("lora")
    for one in [lora] if isinstance(lora, dict) else lora or []:
        name = one.get("name") or one.get("lora_name") or one.get("adapter")
        path = (
            one.get("local_path")
            or one.get("path")
            or one.get("lora_path")
            or one.get("lora_local_path")
        )
        if name and path:
            yield str(path)


def comfyui(request: HttpRequest) -> Iterator[str]:
    if request.path != "/prompt":
        return
    graph = aiohttp_json(request)["prompt"]
    for node in graph.values():
        inputs, kind = node["inputs"], node["class_type"]
        if kind == "LoraLoader":
            value = inputs.get("lora_name")
            yield graph[value[0]]["inputs"]["value"] if isinstance(value, list) else value
        elif kind == "Power Lora Loader (rgthree)":
            for name, value in inputs.items():
                if name.upper().startswith("LORA_") and value.get("on") and value.get("lora"):
                    yield value["lora"]
        elif kind == "CR LoRA Stack":
            for number in "123":
                if inputs.get(f"switch_{number}") == "On":
                    yield inputs.get(f"lora_name_{number}")


def a1111(request: HttpRequest) -> Iterator[str]:
    if request.path != "/sdapi/v1/txt2img":
        return
    body = starlette_json(request)
    for name in ("prompt", "negative_prompt"):
        for match in re.finditer(r"<(\w+):([^>]+)>", body.get(name) or ""):
            if match[1] in ("lora", "lyco"):
                yield match[2].split(":")[0]
    option = (body.get("override_settings") or {}).get("sd_lora")
    if option:
        yield option


def httplib_form(request: HttpRequest) -> dict[str, str]:
    """The plain fields: heads cut at every semicolon, and files without a name among them."""
    kind = request.header("content-type")
    if not kind.startswith("multipart/form-data"):
        raise ValueError(kind)
    boundary = kind[kind.index("boundary=") + 9 :].split(";")[0].strip('"').encode()
    rest = request.body[request.body.index(b"--" + boundary + b"\r\n") + len(boundary) + 4 :]
    fields: dict[str, str] = {}
    while True:
        head, _, rest = rest.partition(b"\r\n\r\n")
        data, _, rest = rest.partition(b"\r\n--" + boundary)
        given: dict[str, str] = {}
        for line in head.decode().split("\r\n"):
            if match := re.fullmatch(r"(?i)content-disposition:\s*form-data;\s*(.*)", line):
                for part in match[1].split(";"):
                    key, *values = part.split("=")
                    given.setdefault(key.strip(' "'), (values or [""])[-1].strip(' "'))
        if not given.get("filename"):
            fields.setdefault(given["name"], data.decode())
        if rest.startswith(b"--"):
            return fields
        if not rest.startswith(b"\r\n"):
            raise ValueError(rest)
        rest = rest[2:]


def _sd_cpp_list(value: Any) -> Iterator[str]:
    if not isinstance(value, list):
        raise TypeError(value)
    for one in value:
        if not isinstance(one.get("multiplier", 1.0), int | float) or not one["path"]:
            raise TypeError(one)
        yield one["path"].partition("\0")[0]


def stable_diffusion_cpp(request: HttpRequest) -> Iterator[str]:
    """The list of the body where the route has one, and else that of the arguments."""
    if request.path == "/v1/images/edits":
        body: Any = httplib_form(request)
    else:
        body = starlette_json(request)
    if request.path in ("/sdcpp/v1/img_gen", "/sdcpp/v1/vid_gen"):
        if "lora" in body:
            yield from _sd_cpp_list(body["lora"])
        return
    block = re.search(r"<sd_cpp_extra_args>([^\r\n]*?)</sd_cpp_extra_args>", body["prompt"])
    given = json.loads(block[1]) if block and block[1] else {}
    named = list(_sd_cpp_list(given["lora"])) if "lora" in given else []
    if request.path == "/sdapi/v1/txt2img" and isinstance(body.get("lora"), list):
        named = list(_sd_cpp_list([one for one in body["lora"] if isinstance(one, dict)]))
    yield from named


class _Members(dict[str, Any]):
    """What encoding/json finds: names in any letters, of which the last counts."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        alike = str.maketrans({"\u017f": "s", "\u212a": "k"})
        super().__init__((name.translate(alike).lower(), value) for name, value in pairs)


def localai(request: HttpRequest) -> Iterator[str]:
    """A decoder that reads one value and does not look at what follows it."""
    if request.header("content-type") not in ("", "application/json"):
        return
    text = request.body.decode("utf-8", "replace").lstrip(" \t\r\n")
    body, _ = json.JSONDecoder(object_pairs_hook=_Members).raw_decode(text)
    prompts = body.get("prompt")
    if request.path == "/video":
        texts = [prompts]
    elif request.path == "/v1/images/generations":
        several = prompts if isinstance(prompts, list) else [prompts]
        texts = [one.split("|")[0] for one in several if isinstance(one, str)]
    else:
        return
    for one in texts:
        for match in re.finditer(r"<lora:([^:>]+):\s*[-+]?\.?\d[^>]*>", one.partition("\0")[0]):
            yield match[1].removeprefix("|high_noise|")


def swarmui(request: HttpRequest) -> Iterator[str]:
    """Parameters by their letters alone; a list is a text to the server, and divided again."""
    if request.path.lower() != "/api/generatetext2image":
        return
    for key, value in starlette_json(request).items():
        small = "".join(one.lower() if one.isascii() else one for one in key)
        letters = re.sub("[^a-z]", "", small)
        if letters == "loras" and value is not None and value not in ("", []):
            text = "\n|||\n".join(map(str, value)) if isinstance(value, list) else str(value)
            names = text.split("\n|||\n" if "\n|||\n" in text else ",")
            yield from (one.strip().removesuffix(".safetensors") for one in names if one.strip())
        elif letters in ("prompt", "negativeprompt") and isinstance(value, str):
            yield from re.findall(r"(?i)<lora(?:\[[^<>]*\])?:([^<>:]+)[^<>]*>", value)


def fooocus(request: HttpRequest) -> Iterator[str]:
    if request.path != "/v1/generation/text-to-image":
        return
    body = starlette_json(request)
    for one in body.get("loras") or []:
        if one.get("enabled", True) and one["model_name"] != "None" and -2 <= one["weight"] <= 2:
            yield one["model_name"]
    first = (body.get("prompt") or "").splitlines()[:1]
    for token in "".join(first).split(","):
        number = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
        yield from (name for name, _ in re.findall(rf"<lora:([^:]+):({number})>", token))


def xinference(request: HttpRequest) -> Iterator[str]:
    if request.path != "/v1/models":
        return
    body = starlette_json(request)
    for one in (body.get("peft_model_config") or {}).get("lora_list") or []:
        if one["lora_name"]:
            yield one["local_path"]


def cog(request: HttpRequest) -> Iterator[str]:
    if request.path != "/predictions":
        return
    inputs = starlette_json(request)["input"]
    yield from (inputs[name] for name in ("lora_weights", "extra_lora") if inputs.get(name))


MODELS: Mapping[str, Callable[[HttpRequest], Iterator[str]]] = {
    "sglang": sglang,
    "vllm_omni": vllm_omni,
    "comfyui": comfyui,
    "a1111": a1111,
    "stable_diffusion_cpp": stable_diffusion_cpp,
    "localai": localai,
    "swarmui": swarmui,
    "fooocus": fooocus,
    "xinference": xinference,
    "cog": cog,
}


def honoured(server: str, request: HttpRequest) -> list[str]:
    """The references that a server would load; none where it would answer with an error."""
    if request.method not in ("POST", "PUT", "PATCH") or server not in MODELS:
        return []
    try:
        found = list(MODELS[server](request))
    except Exception:  # whatever breaks in a server is an error that loads nothing
        return []
    return [one for one in found if isinstance(one, str) and one not in ("", "None")]


def nothing_passes_unaudited(server: str, extractor: ImageServer, request: HttpRequest) -> int:
    """Every honoured reference is found, unless the request is refused; how many there were."""
    wanted = honoured(server, request)
    try:
        adapters = extractor.extract(request).adapters
    except RefusedRequestError:
        return len(wanted)
    for one in wanted:
        assert any(one in (adapter.path or adapter.uri or "") for adapter in adapters), one
    return len(wanted)
