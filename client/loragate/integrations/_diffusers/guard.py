"""Puts the guard on a pipeline, and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NoReturn, Self

from loragate.client import AuditClient
from loragate.integrations._diffusers import parts, walk
from loragate.integrations._diffusers.admission import COPIED, Admission
from loragate.integrations._diffusers.closed import closed_methods, sentence
from loragate.integrations._diffusers.components import Components
from loragate.integrations._diffusers.methods import Methods
from loragate.integrations._diffusers.seal import UnauditedChange
from loragate.integrations._diffusers.sealed_class import sealed_class
from loragate.integrations._diffusers.stand_ins import StandIns
from loragate.integrations._together import Gatekeeper, OnReview

Look = Literal["sums", "writes"]
_SCALES = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")
_CONVERTING = ("half", "float", "double", "bfloat16", "type")
_MOVING = (
    "enable_model_cpu_offload",
    "enable_group_offload",
    "maybe_free_model_hooks",
    "remove_all_hooks",
    "reset_device_map",
)


def guard(
    pipeline: Any,
    client: AuditClient,
    *,
    base_model: str = "",
    base_digest: str | None = None,
    on_review: OnReview = "block",
    strength: float | None = None,
    look: Look = "sums",
) -> Guard:
    """Lets this pipeline object use only adapters that the service allows.

    Replaces the methods by which an adapter takes effect, of the pipeline and of its models: each
    asks about all adapters that will be active together, at the strengths at which they will be,
    before anything changes. What brings weights in that cannot be audited is refused. Before each
    use of a model the guard looks whether it is made of what was asked about, and asks about, or
    refuses, what has been changed in any other way. Works until `release()`, or to the end of its
    `with` block.

    Args:
        pipeline: a diffusers pipeline that can load LoRA weights, with none loaded yet.
        client: asks the service; its `on_unavailable` decides when there is no answer.
        base_model: name under which the service knows the pipeline's model; empty for its default.
        base_digest: digest that the model must have there; None to accept any.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.
        strength: asks about this strength too when an adapter is loaded, so that one which could
            not be used so strongly is refused at once. Loading itself uses 1.
        look: how closely weights are looked at. "sums" sums up all of them before each call of the
            pipeline, and of a model that is called by itself; "writes" only those of which torch
            says that they were written, so that writes through `.data` are not seen.

    Raises:
        TypeError: the pipeline cannot load LoRA weights.
        ValueError: an option has a value that it cannot have, adapters are loaded already, or
            weights are kept where they cannot be looked at.
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
    if look not in ("sums", "writes"):
        raise ValueError(f"look must be 'sums' or 'writes', not {look!r}.")
    if loaded := sorted(parts.held_names(pipeline)):
        raise ValueError(
            f"The adapter {loaded[0]!r} was loaded before the guard and never audited. "
            "Guard the pipeline first, or call unload_lora_weights()."
        )
    return Guard(pipeline, keeper, strength, look)


class Guard:
    """A guarded pipeline; made by `guard`."""

    def __init__(
        self, pipeline: Any, keeper: Gatekeeper, strength: float | None, look: Look
    ) -> None:
        self._pipeline = pipeline
        self._methods = Methods()
        self._hooks: list[Any] = []
        self._admission = Admission(pipeline, keeper, sums=look == "sums")
        self._own_class = type(pipeline)
        self._class = sealed_class(type(pipeline), self._admission, Components(pipeline))
        self._stand_ins = StandIns(self._admission, strength)
        self._put_on_pipeline()
        for name, model in parts.models(pipeline).items():
            self._put_on_model(name, model)
        for name, model in parts.denoisers(pipeline).items():
            self._put_on_denoiser(name, model)
        object.__setattr__(pipeline, "__class__", self._class)

    def release(self) -> None:
        """Gives the pipeline its own methods back. May be called twice.

        Raises:
            RuntimeError: a guard that was put on later is still there.
        """
        self._methods.take_back()
        while self._hooks:
            self._hooks.pop().remove()
        if type(self._pipeline) is self._class:
            object.__setattr__(self._pipeline, "__class__", self._own_class)
        self._admission.copies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnauditedChange(COPIED)

    def _put_on_pipeline(self) -> None:
        made = self._stand_ins
        self._put(
            self._pipeline,
            load_lora_weights=made.load,
            set_adapters=made.set_adapters,
            encode_prompt=made.encode,
            unload_lora_weights=made.change,
            **dict.fromkeys(_MOVING, made.change),
        )
        self._put_alike(self._pipeline)
        self._close(self._pipeline, is_pipeline=True)

    def _put_on_denoiser(self, name: str, model: Any) -> None:
        made = self._stand_ins
        self._put(
            model,
            load_lora_adapter=partial(made.load_one, name),
            set_adapters=partial(made.set_in_denoiser, model),
            set_adapter=made.activate_in_denoiser,
            enable_adapters=made.enable,
            disable_adapters=made.change,
            unload_lora=made.change,
        )
        self._put_alike(model)

    def _put_on_model(self, name: str, model: Any) -> None:
        convert = self._stand_ins.convert
        self._put(model, to=partial(convert, name, False))
        self._put(model, **dict.fromkeys(_CONVERTING, partial(convert, name, True)))
        is_denoiser = any(model is one for one in parts.denoisers(self._pipeline).values())
        self._close(model, is_pipeline=False, is_denoiser=is_denoiser)
        hook = _BeforeUse(self._admission, name, may_scale=is_denoiser)
        self._hooks.append(model.register_forward_pre_hook(hook, with_kwargs=True))

    def _put_alike(self, owner: Any) -> None:
        made = self._stand_ins
        self._put(
            owner,
            fuse_lora=made.fuse,
            unfuse_lora=made.change,
            enable_lora=made.enable,
            disable_lora=made.change,
            delete_adapters=made.delete,
        )

    def _close(self, owner: Any, *, is_pipeline: bool, is_denoiser: bool = False) -> None:
        closed = closed_methods(owner, is_pipeline=is_pipeline, is_denoiser=is_denoiser)
        for name, remedy in closed:
            self._put(owner, **{name: partial(_refuse, sentence(owner, name, remedy))})

    def _put(self, owner: Any, **stand_ins: Callable[..., Any]) -> None:
        for name, stand_in in stand_ins.items():
            self._methods.put(owner, name, self._from_outside(stand_in))

    def _from_outside(self, stand_in: Callable[..., Any]) -> Callable[..., Any]:
        """The stand-in, but not where diffusers' methods call each other."""

        def method(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._admission.busy:
                return original(*args, **kwargs)
            return stand_in(original, *args, **kwargs)

        return method


class _BeforeUse:
    """The hook before each use of a model. No function, as these are copied with a model."""

    def __init__(self, admission: Admission, name: str, *, may_scale: bool) -> None:
        import torch

        self._admission = admission
        self._name = name
        self._may_scale = may_scale
        # What looks at a model is no part of what is compiled of it.
        self._look = torch.compiler.disable(self._look_and_ask)
        walk.ours(self)

    def __call__(self, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._look({keyword: kwargs.get(keyword) for keyword in _SCALES})

    def _look_and_ask(self, kwargs: Mapping[str, Any]) -> None:
        self._admission.before_use(self._name)
        for keyword in _SCALES if self._may_scale else ():
            scale = (kwargs.get(keyword) or {}).get("scale", 1.0)
            if scale != 1.0:
                self._admission.ask_about_active(float(scale), once=True)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnauditedChange(COPIED)


def _refuse(reason: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise UnauditedChange(reason)
