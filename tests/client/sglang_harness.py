"""What SGLang's pipeline and hook registry do, as far as the plugin meets them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from safetensors.numpy import load_file


class LoRAPipeline:
    """As SGLang's, as far as the loading of adapters goes: no layers, but the tensors are real."""

    def __init__(self, lora_path: str | None = None, lora_weight_name: str | None = None) -> None:
        self.server_args = SimpleNamespace(lora_path=lora_path, lora_weight_name=lora_weight_name)
        self.loaded_adapter_paths: dict[str, str] = {}
        self.lora_adapters: dict[str, Any] = {}
        self.applied: dict[str, list[tuple[str, float]]] = {}

    def load_lora_adapter(
        self,
        lora_path: str,
        lora_nickname: str,
        rank: int,
        weight_name: str | None = None,
        lora_alpha: int | None = None,
    ) -> None:
        self.lora_adapters[lora_nickname] = load_file(lora_path)
        self.loaded_adapter_paths[lora_nickname] = lora_path

    def set_lora(
        self,
        lora_nickname: Any,
        lora_path: Any = None,
        target: Any = "all",
        strength: Any = 1.0,
        merge_weights: bool | None = None,
        merge_mode: str | None = None,
        lora_alpha: Any = None,
        cache_merged: bool = False,
    ) -> None:
        names = lora_nickname if isinstance(lora_nickname, list) else [lora_nickname]
        paths = lora_path if isinstance(lora_path, list) else [lora_path] * len(names)
        strengths = strength if isinstance(strength, list) else [strength] * len(names)
        for name, path in zip(names, paths, strict=True):
            if path is not None and self.loaded_adapter_paths.get(name) != path:
                self.load_lora_adapter(path, name, 0)
        self.applied[str(target)] = list(zip(names, strengths, strict=True))

    def merge_lora_weights(self, target: str = "all", strength: float = 1.0) -> None:
        self.applied["merged"] = [(target, strength)]


class GPUWorker:
    def update_weights_from_disk(self, model_path: str) -> str:
        return model_path

    def update_weights_from_tensor(self, tensors: Any) -> Any:
        return tensors


class HookType(Enum):
    AROUND = "around"


def harness_registry(name: str, load_plugins: Callable[[], None]) -> ModuleType:
    """The documented interface: `register`, `apply_hooks` that only logs, `_patched`."""

    class HookRegistry:
        _hooks: ClassVar[dict[str, list[Any]]] = defaultdict(list)
        _patched: ClassVar[set[str]] = set()

        @classmethod
        def register(cls, target: str, hook: Callable[..., Any], hook_type: HookType) -> None:
            cls._hooks[target].append(hook)

        @classmethod
        def apply_hooks(cls) -> None:
            for target, hooks in cls._hooks.items():
                owner, _, name = target.rpartition(".")
                if target in cls._patched:
                    continue
                try:
                    for hook in hooks:
                        around = _around(getattr(resolve_name(owner), name), hook)
                        setattr(resolve_name(owner), name, around)
                except (AttributeError, ImportError):
                    continue
                cls._patched.add(target)

    module = ModuleType(name)
    vars(module).update(HookRegistry=HookRegistry, HookType=HookType)
    vars(module)["load_plugins"] = load_plugins
    vars(module)["apply_plugin_hooks"] = lambda: HookRegistry.apply_hooks()
    return module


def _around(original: Callable[..., Any], hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    return wrapper
