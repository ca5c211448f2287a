"""Which parts of a pipeline an adapter acts in: denoisers or text encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loragate.integrations._diffusers import walk
from loragate.integrations._diffusers.ledger import Use

_TEXT_ENCODER_KEYS = ("text_encoder", "lora_te")


def denoisers(pipeline: Any) -> dict[str, Any]:
    """The models of a pipeline that can load an adapter by themselves, by their names in it."""
    found = named(pipeline).items()
    return {name: part for name, part in found if hasattr(part, "load_lora_adapter")}


def loaded_names(pipeline: Any) -> set[str]:
    """The adapters that are loaded, active or not."""
    listed = pipeline.get_list_adapters().values()
    return {name for names in listed for name in names}


def models(pipeline: Any) -> dict[str, Any]:
    """All models of a pipeline, by their names in it."""
    return {name: one for name, one in vars(pipeline).items() if is_model(one)}


def is_model(component: Any) -> bool:
    """Whether a component of a pipeline has weights."""
    import torch

    return isinstance(component, torch.nn.Module)


def held_names(pipeline: Any) -> set[str]:
    """The adapters that are loaded, also those that peft put into a model past diffusers."""
    held = {
        name
        for model in models(pipeline).values()
        for layer in walk.inside(model).layers.values()
        for name in layer._all_available_adapter_names()  # of which the tensors may be missing
    }
    return held | loaded_names(pipeline)


def merged(pipeline: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """Part, place and adapters of each layer in which adapters are part of the base weights."""
    return [
        (part, place, tuple(layer.merged_adapters))
        for part, model in named(pipeline).items()
        for place, layer in walk.inside(model).layers.items()
        if layer.merged_adapters
    ]


def merged_in(pipeline: Any) -> tuple[bool, bool]:
    """Whether something is fused in denoisers, and in text encoders."""
    parts = {part for part, _, _ in merged(pipeline)}
    first = denoisers(pipeline)
    in_denoiser = {any(getattr(pipeline, part) is one for one in first) for part in parts}
    return True in in_denoiser, False in in_denoiser


def unmerge_disabled(pipeline: Any) -> None:
    """Takes out of the base what is fused and turned off, as peft does at the next use."""
    for model in _parts(pipeline):
        for layer in walk.inside(model).layers.values():
            if layer.disable_adapters and layer.merged:
                layer.unmerge()


def acting(pipeline: Any) -> tuple[set[str], set[str]]:
    """The adapters that denoisers, and that text encoders, add when they are used now."""
    first = denoisers(pipeline)
    found: tuple[set[str], set[str]] = (set(), set())
    for name, part in named(pipeline).items():
        names = found[0] if name in first else found[1]
        for layer in walk.inside(part).layers.values():
            names.update(walk.acting(layer, walk.held(layer)))
    return found


def active(pipeline: Any, uses: Mapping[str, Use]) -> dict[str, Use]:
    """The active adapters, with strength 0 for the parts in which they are not active."""
    return uses_in(uses, *_active_names(pipeline))


def uses_in(
    uses: Mapping[str, Use], in_denoisers: set[str], in_encoders: set[str]
) -> dict[str, Use]:
    """Adapters as they are used in these parts."""
    return {
        name: only(uses[name], denoiser=name in in_denoisers, encoder=name in in_encoders)
        for name in sorted(in_denoisers | in_encoders)
    }


def active_names(pipeline: Any) -> list[str]:
    """The names of the active adapters."""
    in_denoisers, in_encoders = _active_names(pipeline)
    return sorted(in_denoisers | in_encoders)


def left_by_loading(pipeline: Any, company: Mapping[str, Use], data: bytes) -> list[Use]:
    """What stays active beside a newly loaded file, which turns others off where it acts itself.

    Of a pipeline with several denoisers or text encoders a file may reach only one; there
    everything is taken to stay.
    """
    parts = _parts(pipeline)
    several = len(denoisers(pipeline)) > 1, len(parts) - len(denoisers(pipeline)) > 1
    inside = in_encoder(data)
    return [
        left
        for use in company.values()
        if (
            left := only(
                use,
                denoiser=several[0] or all(inside),
                encoder=several[1] or not any(inside),
            )
        )
        != only(use, denoiser=False, encoder=False)
    ]


def _active_names(pipeline: Any) -> tuple[set[str], set[str]]:
    """Those of the denoisers, and those of the text encoders."""
    first = denoisers(pipeline)
    found: tuple[set[str], set[str]] = (set(), set())
    for name, part in named(pipeline).items():
        names = found[0] if name in first else found[1]
        for module in part.modules():
            # Of the layers only: models have a method of this name.
            if isinstance(listed := getattr(module, "active_adapters", None), list):
                names.update(listed)
    return found


def only(use: Use, *, denoiser: bool, encoder: bool) -> Use:
    """A use with strength 0 for the kind of part in which it does not act."""
    return replace(
        use,
        denoiser=use.denoiser if denoiser else 0.0,
        text_encoder=use.text_encoder if encoder else 0.0,
        exact=use.exact and only(use.exact, denoiser=denoiser, encoder=encoder),
    )


def named(pipeline: Any) -> dict[str, Any]:
    """The parts that an adapter can act in, by their names in the pipeline."""
    found = {name: getattr(pipeline, name, None) for name in pipeline._lora_loadable_modules}
    return {name: part for name, part in found.items() if part is not None}


def _parts(pipeline: Any) -> list[Any]:
    return list(named(pipeline).values())


def in_encoder(data: bytes) -> list[bool]:
    """For each tensor of a file, whether it acts in a text encoder."""
    return [name.startswith(_TEXT_ENCODER_KEYS) for name in _tensor_names(data)]


def _tensor_names(data: bytes) -> list[str]:
    """The names in the header of a safetensors file, which the service has found sound."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [name for name in header if name != "__metadata__"]
