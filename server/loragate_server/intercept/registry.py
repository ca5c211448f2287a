"""From a name and settings, as in the configuration, to an extractor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, get_type_hints

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.servers.a1111 import A1111
from loragate_server.intercept.servers.cog import Cog
from loragate_server.intercept.servers.comfyui import ComfyUI
from loragate_server.intercept.servers.declarative import Declarative
from loragate_server.intercept.servers.fooocus import Fooocus
from loragate_server.intercept.servers.invokeai import InvokeAI
from loragate_server.intercept.servers.kserve import KServe
from loragate_server.intercept.servers.localai import LocalAI
from loragate_server.intercept.servers.sglang import SGLang
from loragate_server.intercept.servers.stable_diffusion_cpp import StableDiffusionCpp
from loragate_server.intercept.servers.swarmui import SwarmUI
from loragate_server.intercept.servers.triton import Triton
from loragate_server.intercept.servers.vllm_omni import VllmOmni
from loragate_server.intercept.servers.xinference import Xinference

EXTRACTORS: Mapping[str, type[ImageServer]] = {
    one.kind: one
    for one in (
        *(SGLang, VllmOmni, ComfyUI, A1111, StableDiffusionCpp, LocalAI, SwarmUI),
        *(Fooocus, InvokeAI, Xinference, Triton, KServe, Cog, Declarative),
    )
}
"""Name of an image server to its extractor."""


def make_extractor(name: str, kind: str, settings: Mapping[str, Any]) -> ImageServer:
    """The extractor of an image server.

    Args:
        name: by which proxies and metrics know it.
        kind: one of `EXTRACTORS`.
        settings: attributes of its class; lists stand for tuples.

    Raises:
        ValueError: the kind or a setting is unknown, missing or of the wrong type.
    """
    if kind not in EXTRACTORS:
        raise ValueError(f"there is no kind {kind!r}{_hint(kind, EXTRACTORS)}.")
    made = EXTRACTORS[kind]
    known = {one.name: one for one in fields(made) if one.init and one.name != "label"}
    for key in settings:
        if key not in known:
            raise ValueError(f"{kind} has no setting {key!r}{_hint(str(key), known)}.")
    for key, one in known.items():
        needed = one.default is MISSING and one.default_factory is MISSING
        if needed and settings.get(key) in (None, "", [], ()):
            raise ValueError(f"{kind} needs the setting {key!r}.")
    hints = get_type_hints(made)
    values = {key: _converted(key, value, hints[key]) for key, value in settings.items()}
    return made(label=name, **values)


def _converted(key: str, value: Any, hint: Any) -> Any:
    """A value from YAML as the attribute has it."""
    if hint == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise ValueError(f"{key} must be a list of texts, not {value!r}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int, float, str) and type(value) is not hint:
        raise ValueError(f"{key} must be of type {hint.__name__}, not {value!r}.")
    return value


def _hint(wrong: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(wrong, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
