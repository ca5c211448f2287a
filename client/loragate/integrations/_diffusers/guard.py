"""Stands in for the methods of a pipeline by which an adapter takes effect."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Self

from loragate.client import AuditClient
from loragate.integrations._bytes import WEIGHT_NAME, PrivateCopies, parse
from loragate.integrations._diffusers import parts, uneven
from loragate.integrations._diffusers.ledger import (
    Ledger,
    Use,
    distinct,
    each_weight,
    exactly,
    together,
    with_weight,
)
from loragate.integrations._diffusers.methods import Methods
from loragate.integrations._diffusers.source import Weights, read_source
from loragate.integrations._together import Gatekeeper, OnReview
from loragate.results import AuditResult

_SCALES = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")


def guard(
    pipeline: Any,
    client: AuditClient,
    *,
    base_model: str = "",
    base_digest: str | None = None,
    on_review: OnReview = "block",
    strength: float | None = None,
) -> Guard:
    """Lets this pipeline object use only adapters that the service allows.

    Replaces the methods by which an adapter takes effect: `load_lora_weights` (with or without
    `hotswap`), `set_adapters`, `fuse_lora` and `enable_lora` of the pipeline, `load_lora_adapter`,
    `set_adapters`, `fuse_lora` and `enable_lora` of its denoisers; and looks at the `scale` that a
    call of the pipeline may give its adapters. Each asks about all adapters that will be active
    together, at the strengths at which they will be, before anything changes. Works until
    `release()`, or to the end of its `with` block. Code that writes weights itself, or that calls
    peft past diffusers, goes past it.

    Args:
        pipeline: a diffusers pipeline that can load LoRA weights, with none loaded yet.
        client: asks the service; its `on_unavailable` decides when there is no answer.
        base_model: name under which the service knows the pipeline's model; empty for its default.
        base_digest: digest that the model must have there; None to accept any.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.
        strength: asks about this strength too when an adapter is loaded, so that one which could
            not be used so strongly is refused at once. Loading itself uses 1.

    Raises:
        TypeError: the pipeline cannot load LoRA weights.
        ValueError: `on_review` is neither "block" nor "allow", or adapters are loaded already.
    """
    if not callable(getattr(pipeline, "load_lora_weights", None)):
        raise TypeError(f"{type(pipeline).__name__} has no load_lora_weights to guard.")
    keeper = Gatekeeper(
        client,
        base_model=base_model,
        base_digest=base_digest,
        on_review=on_review,
        loader="diffusers",
    )
    loaded = sorted(parts.loaded_names(pipeline))
    if loaded:
        raise ValueError(
            f"The adapter {loaded[0]!r} was loaded before the guard and never audited. "
            "Guard the pipeline first, or call unload_lora_weights()."
        )
    return Guard(pipeline, keeper, strength)


class Guard:
    """A guarded pipeline; made by `guard`."""

    def __init__(self, pipeline: Any, keeper: Gatekeeper, strength: float | None) -> None:
        self._pipeline = pipeline
        self._keeper = keeper
        self._strength = strength
        self._ledger = Ledger()
        self._copies = PrivateCopies()
        self._scaled: dict[tuple[Use, ...], tuple[AuditResult, ...]] = {}
        self._inside = threading.local()
        self._methods = Methods()
        self._hooks: list[Any] = []
        self._put(pipeline, load_lora_weights=self._load, set_adapters=self._set_adapters)
        for model in parts.denoisers(pipeline):
            set_denoiser = partial(self._set_denoiser, model)
            self._put(model, load_lora_adapter=self._load_one, set_adapters=set_denoiser)
            self._hooks.append(
                model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
            )

    def release(self) -> None:
        """Gives the pipeline its own methods back. May be called twice.

        Raises:
            RuntimeError: a guard that was put on later is still there.
        """
        self._methods.take_back()
        while self._hooks:
            self._hooks.pop().remove()
        self._copies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _put(self, owner: Any, **stand_ins: Callable[..., Any]) -> None:
        alike = {"fuse_lora": self._fuse, "unfuse_lora": self._unfuse, "enable_lora": self._enable}
        for name, stand_in in (stand_ins | alike).items():
            self._methods.put(owner, name, self._from_outside(stand_in))

    def _from_outside(self, stand_in: Callable[..., Any]) -> Callable[..., Any]:
        """The stand-in, but not where diffusers' methods call each other."""

        def method(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if getattr(self._inside, "busy", False):
                return original(*args, **kwargs)
            return stand_in(original, *args, **kwargs)

        return method

    @contextmanager
    def _within(self) -> Iterator[None]:
        self._inside.busy = True
        try:
            yield
        finally:
            self._inside.busy = False
            # Also loading and setting unfuse, as peft says in a warning.
            if self._ledger.fused and not parts.is_fused(self._pipeline):
                self._ledger.fused = ()

    def _load(
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
        copy = self._copies.put(data)
        self._ask_to_load(name, use, data, adapter_name if hotswap else None)
        before = parts.loaded_names(self._pipeline)
        if adapter_name is not None:
            kwargs["adapter_name"] = adapter_name
        with self._within():
            if isinstance(source, Mapping):
                answer = original(parse(data), hotswap=hotswap, **kwargs)
            else:
                # A state dict would be simpler, but diffusers reads `lora_adapter_metadata`
                # (alphas, ranks) from the header of a file only; without it other weights would
                # be active than were audited.
                place = {"weight_name": WEIGHT_NAME, "use_safetensors": True}
                answer = original(copy.parent, hotswap=hotswap, **place, **kwargs)
        new = {adapter_name} if adapter_name else parts.loaded_names(self._pipeline) - before
        self._ledger.uses |= dict.fromkeys(new, use)
        return answer

    def _load_one(
        self,
        original: Callable[..., Any],
        pretrained_model_name_or_path_or_dict: Weights,
        prefix: str | None = "transformer",
        hotswap: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Stands in for `load_lora_adapter` of a denoiser, with the same arguments."""
        return self._load(
            partial(original, prefix=prefix),
            pretrained_model_name_or_path_or_dict,
            hotswap=hotswap,
            **kwargs,
        )

    def _ask_to_load(self, name: str, use: Use, data: bytes, replaced: str | None) -> None:
        """Asks about a new adapter in the company in which loading activates it."""
        company = self._active()
        before = company.pop(replaced or "", None)
        left = (
            company.values() if replaced else parts.left_by_loading(self._pipeline, company, data)
        )
        # After a swap the strength is 1 again; the one set before is what will follow.
        strengths = {1.0, self._strength, before.denoiser if before else None} - {None, 0.0}
        for strength in sorted(filter(None, strengths)):
            used = replace(use, denoiser=strength, text_encoder=strength)
            self._ask(name, [*self._ledger.fused, *left, used])

    def _set_adapters(
        self,
        original: Callable[..., Any],
        adapter_names: str | Sequence[str],
        adapter_weights: Any = None,
    ) -> Any:
        names = distinct(adapter_names)
        uses = self._weighted(names, adapter_weights)
        self._ask(" + ".join(names), [*self._ledger.fused, *uses], exact_first=True)
        with self._within():
            answer = original(adapter_names, adapter_weights)
        self._ledger.uses |= dict(zip(names, uses, strict=True))
        return answer

    def _set_denoiser(
        self,
        model: Any,
        original: Callable[..., Any],
        adapter_names: str | Sequence[str],
        weights: Any = None,
    ) -> Any:
        """As `_set_adapters`; what is active in the text encoders stays so."""
        names = distinct(adapter_names)
        uses = self._weighted(names, weights, only=model)
        encoders = [
            parts.only(use, denoiser=False, encoder=True)
            for name, use in self._active().items()
            if use.text_encoder and name not in names
        ]
        self._ask(" + ".join(names), [*self._ledger.fused, *encoders, *uses], exact_first=True)
        with self._within():
            answer = original(adapter_names, weights)
        self._ledger.uses |= dict(zip(names, uses, strict=True))
        return answer

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
                self._copies.put(data)
                use = replace(use, exact=Use(hashlib.sha256(data).hexdigest()))
            made.append(use)
        return made

    def _fuse(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = signature(original).bind_partial(*args, **kwargs).arguments
        scale = float(given.get("lora_scale", 1.0))
        active = self._active()
        names = distinct(given.get("adapter_names") or list(active))
        uses = {
            # diffusers scales active adapters; others are fused as strongly as they were set.
            name: use.times(scale) if name in active else use
            for name, use in zip(names, self._ledger.of(names), strict=True)
        }
        self._ask(" + ".join(names), [*self._ledger.fused, *uses.values()])
        with self._within():
            answer = original(*args, **kwargs)
        self._ledger.fused = (*self._ledger.fused, *uses.values())
        # The scale stays with the adapters, also after they are unfused.
        self._ledger.uses |= uses
        return answer

    def _unfuse(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._within():
            return original(*args, **kwargs)

    def _enable(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._ask_about_active(1.0)
        with self._within():
            return original(*args, **kwargs)

    def _before_forward(self, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Asks, once, about the adapters as a call of the pipeline scales them."""
        for keyword in _SCALES:
            scale = (kwargs.get(keyword) or {}).get("scale", 1.0)
            if scale != 1.0:
                self._ask_about_active(float(scale), once=True)

    def _ask_about_active(self, scale: float, *, once: bool = False) -> None:
        active = self._active()
        uses = (*self._ledger.fused, *(use.times(scale) for use in active.values()))
        known = self._scaled.pop(uses, ()) if once else ()
        if not known or not all(map(self._keeper.still_holds, known)):
            known = self._ask(" + ".join(active), uses)
        if known:
            self._scaled[uses] = known

    def _ask(
        self, name: str, uses: Sequence[Use], *, exact_first: bool = False
    ) -> tuple[AuditResult, ...]:
        """Asks about what has an effect: at strength 0 an adapter has none.

        Where strengths differ by block, it asks about what is exactly active, and about each
        adapter at its strongest; both have to be allowed.
        """
        questions = [together(uses), together(exactly(uses))]
        if questions[0] == questions[1]:
            questions.pop()
        elif exact_first:
            questions.reverse()
        effective = [
            [
                use.reference(self._copies.get(use.sha256))
                for use in question
                if use.denoiser or use.text_encoder
            ]
            for question in questions
        ]
        return tuple(self._keeper.admit(name, question) for question in effective if question)

    def _active(self) -> dict[str, Use]:
        self._ledger.keep_only(parts.loaded_names(self._pipeline))
        self._ledger.of(parts.active_names(self._pipeline))
        return parts.active(self._pipeline, self._ledger.uses)
