"""Which parts of a pipeline an adapter acts in: denoisers or text encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loragate.integrations._diffusers.ledger import Use

_TEXT_ENCODER_KEYS = ("text_encoder", "lora_te")


def denoisers(pipeline: Any) -> list[Any]:
    """The models of a pipeline that can load an adapter by themselves."""
    return [part for part in _parts(pipeline) if hasattr(part, "load_lora_adapter")]


def loaded_names(pipeline: Any) -> set[str]:
    """The adapters that are loaded, active or not."""
    listed = pipeline.get_list_adapters().values()
    return {name for names in listed for name in names}


def is_fused(pipeline: Any) -> bool:
    """Whether adapters are part of the base weights."""
    return any(
        getattr(module, "merged_adapters", None)
        for part in _parts(pipeline)
        for module in part.modules()
    )


def active(pipeline: Any, uses: Mapping[str, Use]) -> dict[str, Use]:
    """The active adapters, with strength 0 for the parts in which they are not active."""
    in_denoisers, in_encoders = _active_names(pipeline)
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
    in_encoder = [name.startswith(_TEXT_ENCODER_KEYS) for name in _tensor_names(data)]
    return [
        left
        for use in company.values()
        if (
            left := only(
                use,
                denoiser=several[0] or all(in_encoder),
                encoder=several[1] or not any(in_encoder),
            )
        )
        != only(use, denoiser=False, encoder=False)
    ]


def _active_names(pipeline: Any) -> tuple[set[str], set[str]]:
    """Those of the denoisers, and those of the text encoders."""
    first = denoisers(pipeline)
    found: tuple[set[str], set[str]] = (set(), set())
    for part in _parts(pipeline):
        names = found[0] if any(part is one for one in first) else found[1]
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


def _tensor_names(data: bytes) -> list[str]:
    """The names in the header of a safetensors file, which the service has found sound."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [name for name in header if name != "__metadata__"]
