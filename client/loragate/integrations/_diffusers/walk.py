"""Goes through a model as an audit sees it: the base below, and adapters in layers around it.

A layer that peft puts around another does not count as a change of the base: what lies under it
is found at the place where it was before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

_OURS = "_loragate"
_LIBRARIES = ("accelerate.", "diffusers.", "transformers.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass
class Inside:
    """What was found in one model.

    Attributes:
        base: modules of the base, by their place without adapters.
        layers: layers that hold adapters, by their place.
    """

    base: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)


def inside(model: Any) -> Inside:
    """The modules of a model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = Inside()

    def visit(module: Any, place: str) -> None:
        if isinstance(module, BaseTunerLayer):
            # One layer of adapters around another keeps both.
            found.layers[f"{place}+" if place in found.layers else place] = module
            visit(module.base_layer, place)
            return
        found.base[place] = module
        for name, child in module._modules.items():
            if child is not None:
                visit(child, f"{place}.{name}" if place else name)

    visit(model, "")
    return found


def own_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and buffers of a module itself."""
    for group in (module._parameters, module._buffers):
        for name, tensor in group.items():
            if tensor is not None:
                yield name, tensor


def adapter_tensors(layer: Any) -> Iterator[tuple[str, str, Any]]:
    """Adapter, name and value of each tensor that a layer of adapters adds to its base."""
    for name, tensor in own_tensors(layer):
        yield "", name, tensor
    for holder_name, holder in layer._modules.items():
        if holder_name == "base_layer" or holder is None:
            continue
        for adapter, tensor in own_tensors(holder):
            yield adapter, holder_name, tensor
        for adapter, module in holder._modules.items():
            for name, tensor in _all_tensors(module):
                yield adapter, f"{holder_name}.{name}", tensor


def settings(layer: Any) -> dict[tuple[str, str], Any]:
    """What a layer says of each adapter beside its tensors: alpha, rank, kinds of variants."""
    found: dict[tuple[str, str], Any] = {}
    for name, value in vars(layer).items():
        # What begins with a line is torch's or peft's own; strengths are looked at by themselves.
        if isinstance(value, dict) and not name.startswith("_") and name != "scaling":
            for adapter, one in value.items():
                plain = isinstance(one, bool | int | float | str | None)
                found[name, str(adapter)] = one if plain else type(one).__qualname__
    return found


def wiring(module: Any) -> tuple[Any, ...]:
    """By which code of its own, rather than its class's, a module makes its output.

    Loaders that know no peft put functions of theirs there.
    """
    parts: list[Any] = [type(module)]
    if (forward := vars(module).get("forward")) is not None:
        parts.append(("forward", id(forward)))
    for name in _HOOKS:
        hooks = getattr(module, name).values()
        parts.extend((name, id(hook)) for hook in hooks if not _is_known(hook))
    processor = vars(module).get("processor")
    if processor is not None and not type(processor).__module__.startswith("diffusers."):
        # diffusers' own ones without weights are ways of computing the same.
        parts.append((type(processor), id(processor)))
    return tuple(parts)


def _is_known(hook: Any) -> bool:
    """Whether a hook is a guard's, or one with which libraries collect outputs or move weights."""
    return hasattr(hook, _OURS) or str(getattr(hook, "__module__", "")).startswith(_LIBRARIES)


def ours(hook: Any) -> None:
    """Marks a hook as one of a guard, which no guard takes for a change."""
    setattr(hook, _OURS, True)


def held(layer: Any) -> set[str]:
    """The adapters of which a layer holds tensors."""
    return {adapter for adapter, _, _ in adapter_tensors(layer) if adapter}


def acting(layer: Any, names: Collection[str]) -> list[str]:
    """The adapters that a layer adds when it is used now, of those that it holds."""
    if layer.disable_adapters or layer.merged:
        return []
    return [name for name in layer.active_adapters if name in names]


def _all_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    yield from own_tensors(module)
    for child_name, child in module._modules.items():
        for name, tensor in _all_tensors(child):
            yield f"{child_name}.{name}", tensor
