"""Stand in for the methods of a pipeline and its models by which an adapter takes effect."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

from loragate.integrations._bytes import WEIGHT_NAME, parse
from loragate.integrations._diffusers import parts, uneven
from loragate.integrations._diffusers.admission import Admission
from loragate.integrations._diffusers.ledger import Use, distinct, each_weight, with_weight
from loragate.integrations._diffusers.seal import UnauditedChange
from loragate.integrations._diffusers.source import Weights, read_source


class StandIns:
    """Each method gets the one that it stands in for as its first argument.

    Args:
        admission: asks.
        strength: asks about this strength too when an adapter is loaded.
    """

    def __init__(self, admission: Admission, strength: float | None) -> None:
        self._admission = admission
        self._pipeline = admission.pipeline
        self._ledger = admission.ledger
        self._strength = strength

    def load(
        self,
        original: Callable[..., Any],
        pretrained_model_name_or_path_or_dict: Weights,
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Stands in for `load_lora_weights` of the pipeline, with the same arguments.

        Raises:
            AdapterBlocked: the service decided against the adapter; the pipeline is untouched.
            AuditError: no decision exists; the pipeline is untouched.
        """
        source = pretrained_model_name_or_path_or_dict
        data, name = read_source(source, kwargs)
        use = Use(hashlib.sha256(data).hexdigest())
        copy = self._admission.copies.put(data)
        self._ask_to_load(name, use, data, adapter_name if hotswap else None)
        before = parts.loaded_names(self._pipeline)
        if adapter_name is not None:
            kwargs["adapter_name"] = adapter_name
        with self._admission.changing():
            if isinstance(source, Mapping):
                answer = original(parse(data), hotswap=hotswap, **kwargs)
            else:
                # A state dict would be simpler, but diffusers reads `lora_adapter_metadata`
                # (alphas, ranks) from the header of a file only; without it other weights would
                # be active than were audited.
                place = {"weight_name": WEIGHT_NAME, "use_safetensors": True}
                answer = original(copy.parent, hotswap=hotswap, **place, **kwargs)
        new = {adapter_name} if adapter_name else parts.loaded_names(self._pipeline) - before
        self._admission.loaded(new, use)
        return answer

    def load_one(
        self,
        part: str,
        original: Callable[..., Any],
        pretrained_model_name_or_path_or_dict: Weights,
        prefix: str | None = "transformer",
        hotswap: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Stands in for `load_lora_adapter` of a denoiser, whose name in the pipeline comes first.

        Raises:
            UnauditedChange: the prefix would take other weights of the file than those that a
                verdict is about, which `load_lora_weights` takes.
        """
        audited = part.removesuffix("_2")  # both halves of a mixture of experts read one name
        if prefix != audited:
            raise UnauditedChange(
                f"prefix={prefix!r} takes other weights of a file than load_lora_weights does, "
                f"and a verdict is about those. Pass prefix={audited!r}, or call load_lora_weights."
            )
        return self.load(
            partial(original, prefix=prefix),
            pretrained_model_name_or_path_or_dict,
            hotswap=hotswap,
            **kwargs,
        )

    def _ask_to_load(self, name: str, use: Use, data: bytes, replaced: str | None) -> None:
        """Asks about a new adapter in the company in which loading activates it."""
        company = self._admission.active()
        before = company.pop(replaced or "", None)
        left = (
            company.values() if replaced else parts.left_by_loading(self._pipeline, company, data)
        )
        # After a swap the strength is 1 again; the one set before is what will follow.
        strengths = {1.0, self._strength, before.denoiser if before else None} - {None, 0.0}
        for strength in sorted(filter(None, strengths)):
            used = replace(use, denoiser=strength, text_encoder=strength)
            self._admission.ask(name, [*self._ledger.in_weights, *left, used])

    def set_adapters(
        self,
        original: Callable[..., Any],
        adapter_names: str | Sequence[str],
        adapter_weights: Any = None,
    ) -> Any:
        """Stands in for `set_adapters` of the pipeline."""
        names = distinct(adapter_names)
        uses = self._weighted(names, adapter_weights)
        self._ask_to_set(names, uses)
        with self._admission.changing():
            answer = original(adapter_names, adapter_weights)
        self._admission.strengths_set(names, uses)
        return answer

    def set_in_denoiser(
        self,
        model: Any,
        original: Callable[..., Any],
        adapter_names: str | Sequence[str],
        weights: Any = None,
    ) -> Any:
        """Stands in for `set_adapters` of a denoiser; what acts in text encoders stays so."""
        names = distinct(adapter_names)
        uses = self._weighted(names, weights, only=model)
        self._ask_to_set(names, [*self._in_encoders(names), *uses])
        with self._admission.changing():
            answer = original(adapter_names, weights)
        self._admission.strengths_set(names, uses)
        return answer

    def activate_in_denoiser(
        self, original: Callable[..., Any], adapter_name: str | Sequence[str]
    ) -> Any:
        """Stands in for `set_adapter` of a denoiser: as strong as they were set before."""
        names = distinct(adapter_name)
        uses = self._ledger.of(names)
        self._ask_to_set(names, [*self._in_encoders(names), *uses])
        with self._admission.changing():
            return original(adapter_name)

    def _in_encoders(self, names: Sequence[str]) -> list[Use]:
        return [
            parts.only(use, denoiser=False, encoder=True)
            for name, use in self._admission.active().items()
            if use.text_encoder and name not in names
        ]

    def _ask_to_set(self, names: Sequence[str], uses: Sequence[Use]) -> None:
        uses = [*self._ledger.in_weights, *uses]
        self._admission.ask(" + ".join(names), uses, exact_first=True)

    def _weighted(self, names: Sequence[str], weights: Any, *, only: Any = None) -> list[Use]:
        """What `set_adapters` would make of adapters, in all parts or only in one model.

        Raises:
            ValueError: one was loaded past the guard, or its weights cannot be audited.
        """
        made = []
        before = self._ledger.of(names)
        for name, old, weight in zip(names, before, each_weight(weights, len(names)), strict=True):
            use = with_weight(old, weight)
            if only is not None:
                use = replace(use, text_encoder=old.text_encoder)
            if uneven.needs_file(self._pipeline, weight, old, only):
                data = uneven.folded(self._pipeline, name, weight, only)
                self._admission.copies.put(data)
                use = replace(use, exact=Use(hashlib.sha256(data).hexdigest()))
            made.append(use)
        return made

    def fuse(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for `fuse_lora`, of the pipeline and of a denoiser."""
        given = signature(original).bind_partial(*args, **kwargs).arguments
        scale = float(given.get("lora_scale", 1.0))
        active = self._admission.active()
        names = distinct(given.get("adapter_names") or list(active))
        uses = {
            # diffusers scales active adapters; others are fused as strongly as they were set.
            name: use.times(scale) if name in active else use
            for name, use in zip(names, self._ledger.of(names), strict=True)
        }
        self._admission.ask(" + ".join(names), [*self._ledger.in_weights, *uses.values()])
        with self._admission.changing(merging=True):
            answer = original(*args, **kwargs)
        self._ledger.fused = (*self._ledger.fused, *uses.values())
        # The scale stays with the adapters, also after they are unfused.
        scaled = {name: use.times(scale) for name, use in active.items()} | uses
        self._admission.strengths_set(list(scaled), list(scaled.values()))
        return answer

    def enable(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for what turns adapters on again."""
        self._admission.ask_about_active(1.0)
        with self._admission.changing():
            return original(*args, **kwargs)

    def delete(self, original: Callable[..., Any], adapter_names: str | Sequence[str]) -> Any:
        """Stands in for `delete_adapters`.

        Raises:
            ValueError: one of them is fused, and its weights would stay.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        fused = sorted({name for _, _, held in parts.merged(self._pipeline) for name in held})
        if stuck := [name for name in names if name in fused]:
            raise ValueError(
                f"The adapter {stuck[0]!r} is fused, and would stay in the weights. Call "
                "unfuse_lora first."
            )
        with self._admission.changing():
            return original(adapter_names)

    def change(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for what turns adapters off, takes them away, or moves models."""
        with self._admission.changing():
            return original(*args, **kwargs)

    def encode(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for `encode_prompt`, which may scale the adapters of text encoders."""
        given = signature(original).bind_partial(*args, **kwargs).arguments
        scale = given.get("lora_scale")
        if scale is None or scale == 1.0:
            return original(*args, **kwargs)
        self._admission.ask_about_active(float(scale), once=True)
        with self._admission.scaled(float(scale)):
            return original(*args, **kwargs)

    def convert(
        self, name: str, always: bool, original: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Stands in for what turns the weights of a model into another type of numbers."""
        import torch

        given = (*args, *kwargs.values())
        if not always and not any(isinstance(one, torch.dtype | torch.Tensor) for one in given):
            return original(*args, **kwargs)
        seal = self._admission.seals[name]
        seal.check(deep=True)
        answer = original(*args, **kwargs)
        seal.pin_base()
        seal.pin_adapters(set(self._ledger.uses))
        return answer
