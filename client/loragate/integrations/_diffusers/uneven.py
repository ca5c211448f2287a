"""Strengths that differ by block or layer: they make another adapter of the file.

Then no single strength says what is active, neither the strongest nor the mean: layers that undo
each other at equal strengths need not do so at others. So the layers are written into a file of
their own, each at its strength, and this file is audited.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from loragate.integrations._bytes import serialise
from loragate.integrations._diffusers import parts
from loragate.integrations._diffusers.ledger import Use

_BY_BLOCK = (Mapping, list, tuple)


def needs_file(pipeline: Any, weight: Any, before: Use, only: Any) -> bool:
    """Whether a weight of `set_adapters` is other than one number for each kind of part.

    Args:
        pipeline: whose adapter it is for.
        weight: as the caller gives it.
        before: how the adapter was used until now.
        only: the one model for which it is set; None for all of the pipeline.
    """
    if only is not None:
        several = len(parts.denoisers(pipeline)) > 1
        return several or before.exact is not None or isinstance(weight, _BY_BLOCK)
    if not isinstance(weight, Mapping):
        return False
    denoisers = parts.denoisers(pipeline)
    kinds: tuple[set[float], set[float]] = (set(), set())
    for name in parts.named(pipeline):
        own = weight.get(name)
        if isinstance(own, _BY_BLOCK):
            return True
        kinds[0 if name in denoisers else 1].add(1.0 if own is None else float(own))
    return any(len(kind) > 1 for kind in kinds)


def folded(pipeline: Any, adapter: str, weight: Any, only: Any) -> bytes:
    """A safetensors file that at strength 1 does what an adapter would do with this weight.

    The arguments are those of `needs_file`; `adapter` is the name under which it is loaded.

    Raises:
        ValueError: it has parts that no such file can hold.
    """
    tensors: dict[str, Any] = {}
    for part, model in parts.named(pipeline).items():
        if only is None:
            layers = _weighted(model, adapter, weight.get(part))
        elif model is only:
            layers = _weighted(model, adapter, weight)
        else:
            layers = _present(model, adapter)
        for name, (layer, scaling) in layers.items():
            tensors[f"{part}.{name}.lora_A.weight"] = layer.lora_A[adapter].weight.float()
            tensors[f"{part}.{name}.lora_B.weight"] = layer.lora_B[adapter].weight.float() * scaling
    return serialise(tensors)


def _layers(model: Any, adapter: str) -> Iterator[tuple[str, Any]]:
    """The layers of a model in which an adapter acts.

    Raises:
        ValueError: one is more or other than a plain LoRA.
    """
    from peft.tuners.lora.layer import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        if adapter not in layer._all_available_adapter_names():
            continue
        plain = isinstance(layer, LoraLayer) and adapter in layer.lora_A
        further = ("lora_magnitude_vector", "lora_bias")
        if not plain or any(_holds(getattr(layer, one, None), adapter) for one in further):
            raise ValueError(
                f"The adapter {adapter!r} is no plain LoRA in the layer {name!r}, so strengths "
                "that differ by block cannot be audited. Use one strength."
            )
        yield name, layer


def _holds(settings: Any, adapter: str) -> bool:
    """Whether an adapter has something of its own there; for a bias, a flag says so."""
    return bool(settings) and adapter in settings and settings[adapter] is not False


def _present(model: Any, adapter: str) -> dict[str, tuple[Any, float]]:
    """The layers with the scaling that they have now."""
    return {name: (layer, layer.scaling[adapter]) for name, layer in _layers(model, adapter)}


def _weighted(model: Any, adapter: str, weight: Any) -> dict[str, tuple[Any, float]]:
    """The layers with the scaling that diffusers would give them, as diffusers itself says."""
    from diffusers.loaders.peft import _SET_ADAPTER_SCALE_FN_MAPPING
    from diffusers.utils.peft_utils import set_weights_and_activate_adapters
    from peft.tuners.lora.layer import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    class Recorder(BaseTunerLayer):  # type: ignore[misc]
        """Stands in for one layer, and is told its weight."""

        def __init__(self, layer: Any) -> None:
            self.layer = layer
            settings = {key: getattr(layer, key) for key in ("lora_alpha", "r", "use_rslora")}
            self.alike = SimpleNamespace(scaling={adapter: 0.0}, **settings)

        def set_adapter(self, *_args: Any, **_kwargs: Any) -> None:
            """Nothing becomes active."""

        def set_scale(self, name: str, scale: Any) -> None:
            LoraLayer.set_scale(self.alike, name, float(scale))

    recorders = {name: Recorder(layer) for name, layer in _layers(model, adapter)}
    expand = _SET_ADAPTER_SCALE_FN_MAPPING.get(type(model).__name__, lambda _, weights: weights)
    weights = expand(model, [copy.deepcopy(1.0 if weight is None else weight)])
    shadow = SimpleNamespace(named_modules=lambda: recorders.items())
    set_weights_and_activate_adapters(shadow, [adapter], weights)
    return {name: (one.layer, one.alike.scaling[adapter]) for name, one in recorders.items()}
