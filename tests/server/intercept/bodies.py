"""Requests as tests write them, and extractors with the settings that most tests use."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.registry import make_extractor
from loragate_server.intercept.request import HttpRequest, Message

GOLDEN = Path(__file__).parent / "golden"
BOUNDARY = "----harbour"
SETTINGS: dict[str, dict[str, Any]] = {
    "sglang": {},
    "vllm_omni": {},
    "comfyui": {"lora_folder": "/loras"},
    "a1111": {"lora_folder": "/loras"},
    "stable_diffusion_cpp": {"lora_folder": "/loras"},
    "localai": {"lora_folder": "/loras"},
    "swarmui": {"lora_folder": "/loras"},
    "fooocus": {"lora_folder": "/loras"},
    "invokeai": {},
    "xinference": {},
    "triton": {},
    "kserve": {},
    "cog": {},
    "declarative": {
        "rules": [
            {"path": "/generate", "reference": "$..lora", "strength": "$..scale"},
            {"path": "/reload", "door": True},
        ]
    },
}
ROUTES = {
    "sglang": "/v1/set_lora",
    "vllm_omni": "/v1/images/generations",
    "comfyui": "/prompt",
    "a1111": "/sdapi/v1/txt2img",
    "stable_diffusion_cpp": "/sdapi/v1/txt2img",
    "localai": "/v1/images/generations",
    "swarmui": "/API/GenerateText2Image",
    "fooocus": "/v1/generation/text-to-image",
    "invokeai": "/api/v2/models/install",
    "xinference": "/v1/models",
    "triton": "/v2/repository/models/m/load",
    "kserve": "/v2/models/m/infer",
    "cog": "/predictions",
    "declarative": "/generate",
}
"""Of each server, a route whose body can name an adapter."""


def extractor(server: str, **settings: Any) -> ImageServer:
    return make_extractor(server, server, {**SETTINGS[server], **settings})


def post(path: str, body: Any = b"", method: str = "POST", **headers: str) -> HttpRequest:
    """A request; a body that is no bytes is sent as JSON. `_` in header names becomes `-`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path, _, query = path.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(method, path, query, named, data)


def multipart(parts: Sequence[Mapping[str, str]], boundary: str = BOUNDARY) -> bytes:
    lines = []
    for part in parts:
        disposition = f'Content-Disposition: form-data; name="{part["name"]}"'
        if "file_name" in part:
            disposition += f'; filename="{part["file_name"]}"'
        lines += [f"--{boundary}", disposition, "", part["text"]]
    return "\r\n".join([*lines, f"--{boundary}--", ""]).encode()


def multipart_post(path: str, parts: Sequence[Mapping[str, str]]) -> HttpRequest:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return post(path, multipart(parts), content_type=kind)


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def chunk(field: int, data: bytes) -> bytes:
    """A protobuf field of the kind that has a length, written by the specification."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def load_message(model: str, files: Mapping[str, bytes]) -> bytes:
    """A `RepositoryModelLoadRequest` whose parameters are bytes."""
    message = chunk(2, model.encode())
    for name, data in files.items():
        message += chunk(3, chunk(1, name.encode()) + chunk(2, chunk(4, data)))
    return message


def infer_message(given: Mapping[str, Any]) -> bytes:
    """A `ModelInferRequest` with texts as parameters, of the request or of its inputs."""
    message = chunk(1, given["model_name"].encode())
    message += _text_parameters(4, given.get("parameters", {}))
    for one in given.get("inputs", ()):
        tensor = chunk(1, one["name"].encode()) + chunk(2, one["datatype"].encode())
        tensor += chunk(3, b"\x01") + _text_parameters(4, one.get("parameters", {}))
        message += chunk(5, tensor)
    return message + b"".join(chunk(7, one.encode()) for one in given.get("raw", ()))


def _text_parameters(field: int, texts: Mapping[str, str]) -> bytes:
    return b"".join(
        chunk(field, chunk(1, name.encode()) + chunk(2, chunk(3, text.encode())))
        for name, text in texts.items()
    )


def framed(message: bytes, flag: int = 0) -> bytes:
    """A message as gRPC sends it."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def from_golden(document: Mapping[str, Any]) -> HttpRequest:
    """The request of a golden file."""
    given = document["request"]
    headers = dict(given.get("headers", {}))
    body = b""
    if "json" in given:
        body = json.dumps(given["json"], ensure_ascii=False).encode()
        headers.setdefault("content-type", "application/json")
    elif "multipart" in given:
        body = multipart(given["multipart"])
        headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    elif "grpc" in given:
        files = {name: text.encode() for name, text in given["grpc"]["parameters"].items()}
        body = framed(load_message(given["grpc"]["model_name"], files))
    elif "infer" in given:
        body = framed(infer_message(given["infer"]))
        headers["content-type"] = "application/grpc"
    elif "base64" in given:
        body = base64.b64decode(given["base64"])
    if "message" in given:
        return HttpRequest(
            given["method"], given["path"], "", headers, body, message=Message(given["message"])
        )
    headers["content-length"] = str(len(body))
    return HttpRequest(given["method"], given["path"], given.get("query", ""), headers, body)


def golden_files() -> list[Path]:
    return sorted(GOLDEN.glob("*/*.yaml"))


def read_golden(path: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(path.read_text()))
