"""Requests that make their server load a known LoRA, whatever else they hold."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import BOUNDARY, ROUTES, framed, load_message, multipart
from tests.server.intercept.strategies import NAME, PATH, headers

WEIGHTS = b"evil weights"


@dataclass(frozen=True)
class Carrier:
    """A request that makes its server load the LoRA `NAME`, whatever else it holds."""

    request: HttpRequest


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for part in parts:
        made.update(part)
    return made


plain_words = st.text(alphabet="abc xyz,.", max_size=20)
harmless = st.dictionaries(
    st.sampled_from(["seed", "steps", "width", "user", "size", "quality", "note"]),
    st.none() | st.booleans() | st.integers(-9, 9) | plain_words,
    max_size=5,
)
forces = st.floats(-4, 4, allow_nan=False) | st.integers(-3, 3)


@st.composite
def encoded(draw: st.DrawFn, value: Any) -> tuple[bytes, dict[str, str]]:
    """JSON as different clients write it, with the headers that go with it."""
    text = json.dumps(
        value,
        indent=draw(st.sampled_from([None, None, 1, 4])),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " :\t")])),
    )
    if draw(st.booleans()):  # an escaped letter is the same letter
        text = text.replace("evil", "\\u0065vil").replace('"lora', '"l\\u006fra')
    body = text.encode()
    kind = draw(st.sampled_from(["application/json", "text/plain", ""]))
    made = {"content-type": kind} if kind else {}
    coding = draw(st.sampled_from(["", "", "gzip", "deflate"]))
    if coding:
        made["content-encoding"] = coding
        body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    return body, made


@st.composite
def in_json(draw: st.DrawFn, path: str, make: Callable[[st.DrawFn], Any]) -> Carrier:
    body, made = draw(encoded(make(draw)))
    return Carrier(HttpRequest("POST", path, "", made, body))


def _sglang(draw: st.DrawFn) -> Any:
    others = draw(st.lists(st.sampled_from(["/loras/a", "studio/b"]), max_size=3))
    at = draw(st.integers(0, len(others)))
    paths = [*others[:at], PATH, *others[at:]]
    nicknames = [f"n{number}" for number in range(len(paths))]
    if not others and draw(st.booleans()):
        return merged(draw(harmless), {"lora_nickname": "n", "lora_path": PATH})
    return merged(draw(harmless), {"lora_nickname": nicknames, "lora_path": paths})


def _lora_object(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {
        draw(st.sampled_from(["name", "lora_name", "adapter"])): "n",
        draw(st.sampled_from(["local_path", "path", "lora_path", "lora_local_path"])): PATH,
    }
    if draw(st.booleans()):
        made[draw(st.sampled_from(["scale", "lora_scale"]))] = draw(forces)
    return made


def _vllm(draw: st.DrawFn) -> Any:
    lora: Any = _lora_object(draw)
    if draw(st.booleans()):
        lora = [{"name": "a", "path": "/loras/a"}, lora]
    body = merged(draw(harmless), {"lora": lora})
    for name in draw(st.lists(st.sampled_from(["extra_body", "extra_params", "args"]), max_size=2)):
        body = merged(draw(harmless), {name: body})
    return body


def _comfy(draw: st.DrawFn) -> Any:
    number = draw(st.integers(1, 40))
    key, value = draw(
        st.sampled_from(
            [
                ("lora_name", NAME),
                (f"lora_name_{number}", f"{NAME}.safetensors"),
                (f"lora_{number:02}", NAME),
                (f"lora_{number}", {"on": True, "lora": NAME, "strength": 0.5}),
                ("anything", f"{NAME}.safetensors"),
                ("rows", [{"file": f"{NAME}.safetensors"}]),
                ("LoRA", NAME),
                ("lora_name", ["9", 0]),
            ]
        )
    )
    inputs = merged(draw(harmless), {key: value, "model": ["2", 0]})
    kind = draw(st.sampled_from(["LoraLoader", "Unheard Of", "CR LoRA Stack", "Lora Stacker"]))
    graph = {
        "1": {"class_type": kind, "inputs": inputs},
        "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}},
        "9": {"class_type": "PrimitiveString", "inputs": {"value": NAME}},
    }
    order = draw(st.permutations(sorted(graph)))
    return merged(draw(harmless), {"prompt": {name: graph[name] for name in order}})


def _prompt(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["lora", "lyco", "LoRA"]))
    weights = draw(st.sampled_from(["", ":1", ":0.5:0.7", ":te=0.2:unet=0.4"]))
    return f"{draw(plain_words)}<{kind}:{NAME}{weights}>{draw(plain_words)}"


def _a1111(draw: st.DrawFn) -> Any:
    key = draw(st.sampled_from(["prompt", "negative_prompt", "hr_prompt", "infotext", "sd_lora"]))
    if key == "sd_lora":
        return merged(draw(harmless), {"override_settings": {"sd_lora": NAME}})
    return merged(draw(harmless), {key: _prompt(draw)})


def _sd_cpp_list(draw: st.DrawFn, path: str, other: str) -> dict[str, Any]:
    lora: dict[str, Any] = {"path": path}
    if draw(st.booleans()):
        lora["multiplier"] = draw(forces | st.booleans())
    if draw(st.booleans()):
        lora["is_high_noise"] = draw(st.booleans())
    others = draw(st.lists(st.sampled_from([{"path": other}, lora]), max_size=2))
    return merged(draw(harmless), {"lora": draw(st.permutations([lora, *others]))})


def _sd_cpp_body(draw: st.DrawFn) -> Any:
    body = _sd_cpp_list(draw, f"{NAME}.safetensors", "sub/a.gguf")
    return merged(body, {"prompt": draw(plain_words)})


def _sd_cpp_prompt(draw: st.DrawFn) -> str:
    given = json.dumps(_sd_cpp_list(draw, PATH, "/srv/a.gguf"), ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        given = given.replace("evil", "\\u0065vil").replace('"lora', '"l\\u006fra')
    block = f"<sd_cpp_extra_args>{given}</sd_cpp_extra_args>"
    return f"{draw(plain_words)}{block}{draw(plain_words)}"


def _sd_cpp_arguments(draw: st.DrawFn) -> Any:
    return merged(draw(harmless), {"prompt": _sd_cpp_prompt(draw)})


@st.composite
def in_sd_cpp_form(draw: st.DrawFn) -> Carrier:
    parts = [{"name": name, "text": str(text)} for name, text in draw(harmless).items()]
    parts.append({"name": "image[]", "file_name": "a.png", "text": draw(plain_words)})
    prompt = {"name": "prompt", "text": _sd_cpp_prompt(draw)}
    if draw(st.booleans()):
        prompt["file_name"] = ""
    body = multipart(draw(st.permutations([*parts, prompt])))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return Carrier(HttpRequest("POST", "/v1/images/edits", "", {"content-type": kind}, body))


def _localai_prompt(draw: st.DrawFn) -> str:
    weight = draw(st.sampled_from(["1", "0.5", " -2", "1.5 x", "1:2"]))
    return f"{draw(plain_words)}<lora:{NAME}:{weight}>{draw(plain_words)}"


def _localai(draw: st.DrawFn) -> Any:
    text: Any = _localai_prompt(draw) + draw(st.sampled_from(["", "|", "|fog", "|fog|x"]))
    if draw(st.booleans()):
        text = draw(st.permutations([text, draw(plain_words)]))
    key = draw(st.sampled_from(["prompt", "prompt", "Prompt", "PROMPT"]))
    return merged(draw(harmless), {key: text})


def _localai_video(draw: st.DrawFn) -> Any:
    high = draw(st.sampled_from(["", "|high_noise|"]))
    text = _localai_prompt(draw).replace("<lora:", f"| <lora:{high}")
    return merged(draw(harmless), {draw(st.sampled_from(["prompt", "Prompt"])): text})


def _swarmui(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        key = draw(st.sampled_from(["prompt", "negativeprompt", "Negative Prompt"]))
        tag = draw(st.sampled_from(["<lora:{}>", "<LoRA:{}:0.5>", "<lora[x]:{}:1:0>"]))
        return merged(draw(harmless), {key: draw(plain_words) + tag.format(NAME)})
    names = [NAME, *draw(st.lists(st.sampled_from(["a", "b/c.safetensors"]), max_size=2))]
    loras: Any = draw(st.permutations(names))
    if draw(st.booleans()):
        loras = draw(st.sampled_from([",", ", ", "\n|||\n"])).join(loras)
    body = merged(draw(harmless), {draw(st.sampled_from(["loras", "LoRAs", "lo-ras 2"])): loras})
    if draw(st.booleans()):
        body["loraweights"] = draw(st.sampled_from([[0.5], "0.5", ["1", 2, -1, 3]]))
    return body


def _fooocus(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return merged(draw(harmless), {"prompt": f"{draw(plain_words)}<lora:{NAME}:0.5>"})
    loras: list[Any] = [{"model_name": f"{NAME}.safetensors", "weight": draw(forces)}]
    if draw(st.booleans()):
        loras[0]["enabled"] = True
    others = draw(st.lists(st.sampled_from(["None", "a.safetensors"]), max_size=2))
    loras += [{"model_name": one, "weight": 1} for one in others]
    return merged(draw(harmless), {"loras": draw(st.permutations(loras))})


def _xinference(draw: st.DrawFn) -> Any:
    lora: dict[str, Any] = {"lora_list": [{"lora_name": "n", "local_path": PATH}]}
    if draw(st.booleans()):
        lora["image_lora_fuse_kwargs"] = {"lora_scale": draw(forces)}
    if draw(st.booleans()):
        lora["lora_list"].insert(0, {"lora_name": "a", "local_path": "/loras/a"})
    return merged(draw(harmless), {"model_name": "sdxl", "peft_model_config": lora})


def _cog(draw: st.DrawFn) -> Any:
    key = draw(st.sampled_from(["lora_weights", "extra_lora", "hf_lora", "lora_url", "weights"]))
    inputs = merged(draw(harmless), {key: PATH})
    if draw(st.booleans()):
        inputs = merged(draw(harmless), {"hf_loras": ["/loras/a.safetensors", PATH]})
    return merged(draw(harmless), {"input": inputs})


def _kserve(draw: st.DrawFn) -> Any:
    key = draw(st.sampled_from(["lora_path", "adapter_id", "lora", "adapter_uri"]))
    return merged(draw(harmless), {"inputs": [], "parameters": {key: PATH}})


def _declarative(draw: st.DrawFn) -> Any:
    body = merged(draw(harmless), {"lora": PATH})
    for name in draw(st.lists(st.sampled_from(["a", "b"]), max_size=3)):
        body = merged(draw(harmless), {name: [body]})
    return body


def _invoke(draw: st.DrawFn) -> Any:
    return merged(draw(harmless), {draw(st.sampled_from(["source", "location", "path"])): PATH})


@st.composite
def to_triton(draw: st.DrawFn) -> Carrier:
    file = draw(st.sampled_from(["file:1/a.safetensors", "file:B.SAFETENSORS"]))
    beside = draw(
        st.dictionaries(st.sampled_from(["file:a.txt", "file:config.pbtxt"]), st.binary())
    )
    files = dict(draw(st.permutations([*beside.items(), (file, WEIGHTS)])))
    if draw(st.booleans()):
        text = {name: base64.b64encode(data).decode() for name, data in files.items()}
        body, made = draw(encoded(merged(draw(harmless), {"parameters": text})))
        return Carrier(HttpRequest("POST", ROUTES["triton"], "", made, body))
    message = load_message(f"m{draw(plain_words)}", files)
    packed = draw(st.booleans())
    made = {"content-type": "application/grpc"}
    if packed:
        made["grpc-encoding"] = "gzip"
    body = framed(gzip.compress(message) if packed else message, int(packed))
    path = "/inference.GRPCInferenceService/RepositoryModelLoad"
    return Carrier(HttpRequest("POST", path, "", made, body))


def _parts(draw: st.DrawFn) -> Sequence[Mapping[str, str]]:
    parts = [{"name": name, "text": str(text)} for name, text in draw(harmless).items()]
    lora = {"name": "lora", "text": json.dumps(_lora_object(draw))}
    at = draw(st.integers(0, len(parts)))
    return [*parts[:at], lora, *parts[at:]]


@st.composite
def in_form(draw: st.DrawFn) -> Carrier:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    body = multipart(_parts(draw))
    return Carrier(HttpRequest("POST", "/v1/images/edits", "", {"content-type": kind}, body))


@st.composite
def mutated(draw: st.DrawFn, carriers: st.SearchStrategy[Carrier]) -> HttpRequest:
    """A request that carries a LoRA, with a few bytes of its body changed, or a header."""
    request = draw(carriers).request
    body = bytearray(request.body)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        at = draw(st.integers(0, len(body)))
        removed = draw(st.integers(0, 4))
        body[at : at + removed] = draw(
            st.sampled_from([b"", b'"', b",", b"{", b"}", b"[", b"\\", b"\x00", b":", b"1"])
            | st.binary(max_size=3)
        )
    more = draw(st.just({}) | st.just({}) | headers)
    return replace(request, body=bytes(body), headers={**request.headers, **more})


CARRIERS: Mapping[str, st.SearchStrategy[Carrier]] = {
    "sglang": in_json(ROUTES["sglang"], _sglang),
    "vllm_omni": in_json(ROUTES["vllm_omni"], _vllm) | in_form(),
    "comfyui": in_json(ROUTES["comfyui"], _comfy),
    "a1111": in_json(ROUTES["a1111"], _a1111),
    "stable_diffusion_cpp": in_json(ROUTES["stable_diffusion_cpp"], _sd_cpp_body)
    | in_json("/sdcpp/v1/vid_gen", _sd_cpp_body)
    | in_json("/v1/images/generations", _sd_cpp_arguments)
    | in_json(ROUTES["stable_diffusion_cpp"], _sd_cpp_arguments)
    | in_sd_cpp_form(),
    "localai": in_json(ROUTES["localai"], _localai) | in_json("/video", _localai_video),
    "swarmui": in_json(ROUTES["swarmui"], _swarmui),
    "fooocus": in_json(ROUTES["fooocus"], _fooocus),
    "xinference": in_json(ROUTES["xinference"], _xinference),
    "invokeai": in_json("/api/v1/models/import", _invoke),
    "triton": to_triton(),
    "kserve": in_json(ROUTES["kserve"], _kserve),
    "cog": in_json(ROUTES["cog"], _cog),
    "declarative": in_json(ROUTES["declarative"], _declarative),
}
"""Of each server, requests that load `NAME` in a way that the server honours."""
