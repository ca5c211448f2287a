"""Puts the gate on ComfyUI's functions, or closes them where it does not fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from loragate.integrations._settings import gatekeeper_from_environment

from .gate import ComfyGate
from .prompt import PromptGate

LOADERS = (
    ("folder_paths", "get_full_path"),
    ("folder_paths", "get_full_path_or_raise"),
    ("comfy.utils", "load_torch_file"),
    ("comfy.sd", "load_lora_for_models"),
    ("comfy.lora", "load_lora"),
)
"""Through these functions of ComfyUI every LoRA passes; the gate has a method for each."""


def install() -> ComfyGate:
    """Puts the gate on.

    Raises:
        ImportError: it does not fit this ComfyUI, or its settings make no sense; what is there
            of the loaders refuses everything from now on.
    """
    try:
        gate = ComfyGate(gatekeeper_from_environment("comfyui"))
        originals = [(_module(name), function) for name, function in LOADERS]
        for module, function in originals:
            if not callable(getattr(module, function, None)):
                raise AttributeError(f"{module.__name__} has no {function}")
        folder_paths, server = _module("folder_paths"), _module("server")
        prompts = PromptGate(gate, lambda: list(folder_paths.get_filename_list("loras")))
        server.PromptServer.instance.add_on_prompt_handler(prompts.on_prompt)
        _replace([(module, function, getattr(gate, function)) for module, function in originals])
    except Exception as error:
        _close(f"loragate does not fit this ComfyUI ({type(error).__name__}: {error})")
        raise ImportError(
            f"loragate does not fit this ComfyUI, so no LoRA will load: {error}"
        ) from error
    return gate


def _close(reason: str) -> None:
    """Has every loader that is there refuse: a gate that failed must not leave the door open."""

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise RuntimeError(f"{reason}, so nothing is loaded as a LoRA.")

    def refuse_loras(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kind = kwargs.get("folder_name", args[0] if args else "loras")
        return refuse() if kind == "loras" else original(*args, **kwargs)

    closed: list[tuple[ModuleType, str, Callable[..., Any]]] = []
    for name, function in LOADERS:
        # Checkpoints pass through load_torch_file too; they have to stay loadable.
        if function == "load_torch_file":
            continue
        try:
            module = _module(name)
        except ImportError:
            continue
        if callable(getattr(module, function, None)):
            stand_in = refuse_loras if name == "folder_paths" else refuse
            closed.append((module, function, stand_in))
    _replace(closed)


def _module(name: str) -> ModuleType:
    return import_module(name)


def _replace(places: Sequence[tuple[ModuleType, str, Callable[..., Any]]]) -> None:
    """Replaces functions, also where other modules have imported them by name.

    All in one go: beside torch there are thousands of modules to go through.
    """
    originals = [getattr(module, name) for module, name, _ in places]
    installed: dict[int, Callable[..., Any]] = {}
    for original, (_, _, stand_in) in zip(originals, places, strict=True):
        inner = installed.get(id(original), original)  # two names of one function: both stand in
        installed[id(original)] = update_wrapper(partial(stand_in, inner), inner)
    for original, (module, name, _) in zip(originals, places, strict=True):
        setattr(module, name, installed[id(original)])
    for other in list(sys.modules.values()):
        names = vars(other) if isinstance(other, ModuleType) else {}
        for its_name, value in [one for one in names.items() if id(one[1]) in installed]:
            setattr(other, its_name, installed[id(value)])
