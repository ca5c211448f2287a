"""Every way in which this package lets an adapter into an image server, one function for each.

A door asks the service behind the fake server's address and tells whether the adapter got in. All
of them are set to let adapters in where the service is unavailable: whatever keeps one out is
therefore no mere lack of an answer.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from safetensors.torch import load_file

from loragate import (
    AdapterBlocked,
    AdapterReference,
    AsyncAuditClient,
    AuditClient,
    AuditError,
    AuditResult,
)
from loragate.cli import main
from loragate.integrations._sglang_gate import SglangGate
from loragate.integrations._together import Gatekeeper, audit_together
from loragate.integrations.asgi import LoragateMiddleware
from loragate.integrations.diffusers import guard
from loragate.integrations.ray_serve import AuditedModel, audited
from loragate.reference import ASK_FIRST_BYTES, INLINE_LIMIT_BYTES, AuditOptions
from tests.client.comfyui_harness import PACK, Clip, Model, comfy_modules
from tests.client.sglang_harness import LoRAPipeline
from tests.client.tiny_pipeline import tiny_pipeline, write_adapter

Door = Callable[[str, Path], bool]
"""Takes the address of the service and a folder of its own."""

SETTINGS: dict[str, Any] = {"on_unavailable": "allow", "timeout": 20}
"""How clients are set up; those that the environment sets up read it there."""

SMALL = save({"lora_unet_x.lora_up.weight": np.ones((4, 2), np.float32)})
KNOWN = bytes(ASK_FIRST_BYTES)
LARGE = bytes(INLINE_LIMIT_BYTES + 1)
ASKED: AuditOptions = {
    "base_model": "tiny",
    "strength": 0.7,
    "text_encoder_strength": 0.1,
    "loader": "diffusers",
}
TOGETHER: AuditOptions = {"base_model": "tiny", "loader": "diffusers"}


def gets_in(load: Callable[[], Any]) -> bool:
    """Whether loading works; an error of the SDK keeps the adapter out, any other one is a bug."""
    try:
        outcome = load()
    except (AuditError, AdapterBlocked):
        return False
    return outcome.allowed if isinstance(outcome, AuditResult) else bool(outcome)


def connect(target: str) -> AuditClient:
    return AuditClient(target, **SETTINGS)


def _keeper(client: AuditClient, loader: str) -> Gatekeeper:
    return Gatekeeper(client, base_model="tiny", loader=loader)


def _style(folder: Path, data: bytes = SMALL) -> Path:
    path = folder / "style.safetensors"
    path.write_bytes(data)
    return path


def _by_client(ask: Callable[[AuditClient, Path], Any]) -> Door:
    def door(target: str, folder: Path) -> bool:
        with connect(target) as client:
            return gets_in(lambda: ask(client, folder))

    return door


def _by_async_client(ask: Callable[[AsyncAuditClient, Path], Any]) -> Door:
    async def opened(target: str, folder: Path) -> Any:
        async with AsyncAuditClient(target, **SETTINGS) as client:
            return await ask(client, folder)

    return lambda target, folder: gets_in(lambda: asyncio.run(opened(target, folder)))


async def _last(events: Any) -> Any:
    return [event async for event in events][-1]


def _diffusers_loads(client: AuditClient, folder: Path) -> bool:
    pipeline = tiny_pipeline()
    with guard(pipeline, client, base_model="tiny"):
        pipeline.load_lora_weights(write_adapter(folder), adapter_name="a")
    return bool(pipeline.unet.peft_config)


def _sglang(client: AuditClient, folder: Path) -> bool:
    gate = SglangGate(_keeper(client, "sglang"))

    class Gated(LoRAPipeline):
        def load_lora_adapter(self, *args: Any, **kwargs: Any) -> Any:
            return gate.load_lora_adapter(LoRAPipeline.load_lora_adapter, self, *args, **kwargs)

    pipeline = Gated()
    gate.set_lora(LoRAPipeline.set_lora, pipeline, "a", str(_style(folder)), strength=0.7)
    return bool(pipeline.lora_adapters)


def _sglang_loads(client: AuditClient, folder: Path) -> bool:
    pipeline, gate = LoRAPipeline(), SglangGate(_keeper(client, "sglang"))
    gate.load_lora_adapter(LoRAPipeline.load_lora_adapter, pipeline, str(_style(folder)), "a", 0)
    return bool(pipeline.lora_adapters)


def _in_comfyui(load: Callable[[Any, Any], bool]) -> Door:
    """The node pack as its environment sets it up, in the harness of ComfyUI."""

    def door(target: str, folder: Path) -> bool:
        loras = folder / "loras"
        loras.mkdir(exist_ok=True)
        _style(loras)
        with pytest.MonkeyPatch.context() as patched:
            comfy = comfy_modules(loras, patched)
            comfy.file = loras / "style.safetensors"
            patched.setenv("LORAGATE_TARGET", target)
            patched.setenv("LORAGATE_BASE_MODEL", "tiny")
            patched.setenv("LORAGATE_ON_UNAVAILABLE", SETTINGS["on_unavailable"])
            pack = importlib.import_module(PACK)
            try:
                return gets_in(lambda: load(pack, comfy))
            finally:
                for name in [name for name in sys.modules if name.startswith(PACK)]:
                    del sys.modules[name]

    return door


def _comfyui_node(pack: Any, comfy: Any) -> bool:
    node = pack.NODE_CLASS_MAPPINGS["LoragateLoraLoader"]()
    model, _ = node.load(Model(), "style.safetensors", 0.7, Clip(), 0.1)
    return bool(model.patches)


def _comfyui_graph(pack: Any, comfy: Any) -> bool:
    inputs = {"lora_name": "style.safetensors", "strength_model": 0.7, "strength_clip": 0.1}
    graph = {"prompt": {"1": {"class_type": "LoraLoader", "inputs": inputs}}}
    return bool(comfy.server.post_prompt(graph) == (200, "queued"))


async def _asgi(client: AsyncAuditClient, folder: Path) -> bool:
    inside: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(scope["loragate"])

    async def receive() -> Any:
        body = b'{"lora": {"path": "a", "scale": 0.7, "text_encoder_scale": 0.1}}'
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        pass

    guarded = LoragateMiddleware(
        app, routes={"/": None}, client=client, base_model="tiny", loader="diffusers"
    )
    await guarded({"type": "http", "path": "/", "headers": []}, receive, send)
    return bool(inside)


async def _ray(client: AsyncAuditClient, folder: Path) -> bool:
    _style(folder)

    @audited(folder=folder, client=lambda: client, base_model="tiny", loader="diffusers")
    async def get_model(model: AuditedModel) -> bytes:
        return model.path.read_bytes()

    return await get_model("style") == SMALL


def _command(*arguments: str, file: bool = True) -> Door:
    """The command; it never lets in without a service, which is exit code 3."""

    def door(target: str, folder: Path) -> bool:
        place = [str(_style(folder))] if file else []
        words = ["--target", target, "--base-model", "tiny", "--loader", "diffusers"]
        strengths = ["--strength", "0.7", "--text-encoder-strength", "0.1"]
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return main([arguments[0], *words, *strengths, *arguments[1:], *place]) == 0

    return door


def _gate_dir(target: str, folder: Path) -> bool:
    _style(folder)
    return _command("gate-dir", str(folder), file=False)(target, folder)


DOORS: dict[str, Door] = {
    "bytes": _by_client(lambda c, f: c.audit(SMALL, **ASKED)),
    "bytes by digest": _by_client(lambda c, f: c.audit(KNOWN, **ASKED)),
    "upload": _by_client(lambda c, f: c.audit(LARGE, **ASKED)),
    "file": _by_client(lambda c, f: c.audit_file(_style(f), **ASKED)),
    "place": _by_client(lambda c, f: c.audit("a", **ASKED)),
    "watched": _by_client(lambda c, f: list(c.watch(SMALL, **ASKED))[-1]),
    "together": _by_client(
        lambda c, f: audit_together(
            c, [AdapterReference(data=data) for data in (SMALL, KNOWN)], TOGETHER
        )
    ),
    "large together": _by_client(
        lambda c, f: audit_together(
            c, [AdapterReference(data=data) for data in (SMALL, LARGE)], TOGETHER
        )
    ),
    "async bytes": _by_async_client(lambda c, f: c.audit(SMALL, **ASKED)),
    "async bytes by digest": _by_async_client(lambda c, f: c.audit(KNOWN, **ASKED)),
    "async upload": _by_async_client(lambda c, f: c.audit(LARGE, **ASKED)),
    "async file": _by_async_client(lambda c, f: c.audit_file(_style(f), **ASKED)),
    "async place": _by_async_client(lambda c, f: c.audit("a", **ASKED)),
    "async watched": _by_async_client(lambda c, f: _last(c.watch(SMALL, **ASKED))),
    "diffusers": _by_client(_diffusers_loads),
    "sglang set_lora": _by_client(_sglang),
    "sglang load": _by_client(_sglang_loads),
    "comfyui node": _in_comfyui(_comfyui_node),
    "comfyui graph": _in_comfyui(_comfyui_graph),
    "comfyui path": _in_comfyui(
        lambda pack, comfy: comfy.folder_paths.get_full_path("loras", "style.safetensors")
    ),
    "comfyui tensors": _in_comfyui(
        lambda pack, comfy: comfy.lora.load_lora(load_file(comfy.file), {})
    ),
    "asgi": _by_async_client(_asgi),
    "ray serve": _by_async_client(_ray),
    "command": _command("audit"),
    "command together": _command("audit", "--together"),
    "command remote": _command("audit", "--remote"),
    "gate-dir": _gate_dir,
}

BY_PLACE = frozenset({"place", "async place", "asgi", "command remote"})
"""Here the service reads the bytes, and nobody else knows which they are."""
