"""Plugin of SGLang diffusion: every LoRA that its pipeline loads is audited, and copied, first.

Installing `loragate` into SGLang's environment is enough; the entry point in the group
`sglang.multimodal_gen.plugins` loads this module, and the variables of
`loragate.integrations._settings.VARIABLES` configure it. Where SGLANG_PLUGINS is set, it has to
name `loragate`.

SGLang logs the failures of plugins and serves without them. So whatever goes wrong here ends the
process by `SystemExit`, which it does not catch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, NoReturn

from loragate.integrations._settings import gatekeeper_from_environment
from loragate.integrations._sglang_gate import SglangGate

REGISTRIES = (
    "sglang.multimodal_gen.runtime.platforms.plugins",
    "sglang.srt.plugins.hook_registry",
)
"""Where SGLang keeps its `HookRegistry` for diffusion: now, and before it had one of its own."""

PIPELINE = "sglang.multimodal_gen.runtime.pipelines_core.lora.pipeline.LoRAPipeline"
WORKER = "sglang.multimodal_gen.runtime.managers.gpu_worker.GPUWorker"
ALLOW_UPDATES_VARIABLE = "LORAGATE_SGLANG_ALLOW_WEIGHT_UPDATES"


def register() -> None:
    """Registers the hooks, and has SGLang check that they were put on. The entry point.

    Raises:
        SystemExit: the gate cannot be set up; SGLang must not serve without it.
    """
    try:
        gate = SglangGate(gatekeeper_from_environment("sglang"))
        registry, around = _registry()
        hooks: dict[str, Callable[..., Any]] = {
            f"{PIPELINE}.load_lora_adapter": gate.load_lora_adapter,
            f"{PIPELINE}.set_lora": gate.set_lora,
            f"{PIPELINE}.merge_lora_weights": gate.merge_lora_weights,
        }
        if os.environ.get(ALLOW_UPDATES_VARIABLE) != "1":
            hooks[f"{WORKER}.update_weights_from_disk"] = _refuse_update
            hooks[f"{WORKER}.update_weights_from_tensor"] = _refuse_update
        for target, hook in hooks.items():
            registry.register(target, hook, around)
        _check_after_applying(registry, hooks)
    except Exception as error:
        _stop(f"{type(error).__name__}: {error}")


def check_attached(registry: Any, hooks: dict[str, Callable[..., Any]]) -> None:
    """Makes sure that each hook stands where SGLang will call it.

    Raises:
        SystemExit: one does not.
    """
    for target, hook in hooks.items():
        if target not in registry._patched:
            _stop(f"SGLang did not put the hook on {target}; this version may have moved it")
        if not _wraps(resolve_name(target), hook):
            _stop(f"{target} is not wrapped by the gate, although SGLang says so")


def _check_after_applying(registry: Any, hooks: dict[str, Callable[..., Any]]) -> None:
    """SGLang only logs a hook that finds no target, so its `apply_hooks` is made to say so."""
    apply_hooks = registry.apply_hooks

    def apply_and_check() -> None:
        apply_hooks()
        check_attached(registry, hooks)

    registry.apply_hooks = staticmethod(apply_and_check)


def _registry() -> tuple[Any, Any]:
    """The registry of this version of SGLang, and its mark for hooks that wrap.

    Raises:
        ImportError: there is none.
    """
    for name in REGISTRIES:
        try:
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        return module.HookRegistry, module.HookType.AROUND
    raise ImportError(f"There is no HookRegistry in {' or '.join(REGISTRIES)}.")


def _wraps(function: Any, hook: Callable[..., Any]) -> bool:
    """Whether a hook is among the layers of a wrapped function."""
    while function is not None:
        cells = getattr(function, "__closure__", None) or ()
        if any(cell.cell_contents == hook for cell in cells):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _refuse_update(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise PermissionError(
        "Weights that arrive past set_lora cannot be audited, so this door is closed. "
        f"Set {ALLOW_UPDATES_VARIABLE}=1 to open it."
    )


def _stop(reason: str) -> NoReturn:
    raise SystemExit(f"loragate: refusing to let SGLang serve without its gate. {reason}.")
