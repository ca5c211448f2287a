"""Rank and alpha of every layer, as diffusers and peft find them.

Without a configuration in the file, diffusers makes one of the ranks and alphas that it finds
(`get_peft_kwargs`); with one, peft reads it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffusers.utils import get_peft_kwargs
from peft import LoHaConfig, LoKrConfig, LoraConfig
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.loader_rules.meaning import LoaderRefusesError, UnknownEffectError
from loragate_server.intake.loader_rules.patterns import Chosen, FirstMatch

_CONFIGS = {"LORA": LoraConfig, "LOHA": LoHaConfig, "LOKR": LoKrConfig}
_DEFAULT_RANK = 8

# Fields that say how the adapter was trained or by whom, or that the tensors themselves settle.
_WITHOUT_EFFECT = frozenset(
    {
        "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "task_type", "inference_mode", "lora_dropout", "rank_dropout", "module_dropout",
        "rank_dropout_scale", "runtime_config", "init_weights", "use_effective_conv2d",
        "decompose_both", "decompose_factor", "lora_bias",
    }
)  # fmt: skip
_UNDERSTOOD = frozenset(
    {
        "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    }
)  # fmt: skip
_WITHOUT_EFFECT_AT_FIRST = (True, None, "gaussian")
"""Values of `init_lora_weights` that leave a layer without tensors as it was."""
_AT_RANDOM = (False, "orthogonal")


@dataclass(frozen=True)
class Scaling:
    """Rank and alpha of every layer of one component.

    Attributes:
        rank, alpha: where no pattern matches.
        rank_pattern, alpha_pattern: expressions for names of layers, whole or after a dot; the
            first that matches counts.
        root: whether scale is alpha / sqrt(rank) (rsLoRA) instead of alpha / rank.
        dora: whether magnitudes are expected.
        bias: whether biases are used.
        random_start: whether a chosen layer without tensors in the file is changed at random.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    root: bool = False
    dora: bool = False
    bias: bool = False
    random_start: bool = False

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of the layer `module`."""
        rank = max(1, int(self._ranks.of(module)))
        alpha = self._alphas.of(module)
        return rank, alpha / (math.sqrt(rank) if self.root else rank)

    @cached_property
    def _ranks(self) -> FirstMatch[int]:
        return FirstMatch("rank_pattern", self.rank_pattern, self.rank)

    @cached_property
    def _alphas(self) -> FirstMatch[float]:
        return FirstMatch("alpha_pattern", self.alpha_pattern, self.alpha)


def inferred_scaling(
    ranks: Mapping[str, int],
    alphas: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    unet: bool,
) -> Scaling:
    """What diffusers makes of ranks and network alphas.

    Args:
        ranks: tensor name of each `lora_B` to its rank, as diffusers collects them.
        alphas: network alphas of this component.
        state: the component's tensors in PEFT names.
        unet: False for text encoders, whose alphas are named differently.

    Raises:
        LoaderRefusesError: there is no rank to be found.
    """
    if not ranks:
        raise LoaderRefusesError("no layer has a rank")
    kwargs = get_peft_kwargs(dict(ranks), dict(alphas), dict(state), is_unet=unet)
    return Scaling(
        rank=kwargs["r"],
        alpha=float(kwargs["lora_alpha"]),
        rank_pattern=kwargs["rank_pattern"],
        alpha_pattern={key: float(alpha) for key, alpha in kwargs["alpha_pattern"].items()},
        dora=kwargs["use_dora"],
        bias=kwargs["lora_bias"],
    )


def kind_of(config: Mapping[str, Any]) -> str:
    """Which kind of adapter peft makes by this configuration: "LORA", "LOHA", "LOKR", ..."""
    return str(config.get("peft_type", "LORA")).upper()


def declared_scaling(config: Mapping[str, Any], kind: str = "LORA") -> Scaling:
    """What peft makes of an adapter configuration.

    Args:
        config: the configuration.
        kind: of the adapter. A loader that knows LoRA alone takes every configuration for one.

    Raises:
        UnknownEffectError: a field would change the effect in a way that is not understood here.
        NoDecisionError: ADAPTER_METADATA_INVALID, a rank or an alpha is not a usable number.
    """
    if kind not in _CONFIGS:
        raise UnknownEffectError(f"peft_type {kind[:40]} is not understood")
    _refuse_what_is_not_understood(_CONFIGS[kind], config)
    alpha = config.get("lora_alpha" if kind == "LORA" else "alpha")
    return Scaling(
        rank=_rank(config.get("r", _DEFAULT_RANK), "r"),
        alpha=_alpha(_DEFAULT_RANK if alpha is None else alpha, "alpha"),
        rank_pattern={
            key: _rank(value, key) for key, value in _pattern(config, "rank_pattern").items()
        },
        alpha_pattern={
            key: _alpha(value, key) for key, value in _pattern(config, "alpha_pattern").items()
        },
        root=kind == "LORA" and bool(config.get("use_rslora")),  # others know no such field
        dora=bool(config.get("use_dora")),
        bias=bool(config.get("lora_bias")),
        random_start=config.get("init_lora_weights", True) in _AT_RANDOM
        or config.get("init_weights", True) is False,
    )


def chosen_layers(config: Mapping[str, Any]) -> Chosen:
    """Which layers peft adapts by this configuration.

    Raises:
        LoaderRefusesError: peft refuses such a choice.
        UnknownEffectError: an expression is none that can be run safely.
        NoDecisionError: ADAPTER_METADATA_INVALID, a field is of no usable kind.
    """
    targets = _names(config, "target_modules")
    if targets is None:
        raise LoaderRefusesError("its configuration has no target_modules")
    if isinstance(targets, str) and targets.lower() == "all-linear":
        raise UnknownEffectError("target_modules is 'all-linear'")
    indices = config.get("layers_to_transform")
    if indices is not None and not _whole_numbers(indices):
        raise _invalid("layers_to_transform", indices)
    if isinstance(targets, str) and indices is not None:
        raise LoaderRefusesError("layers_to_transform goes with a list of target_modules alone")
    return Chosen(
        targets, _names(config, "exclude_modules"), indices, _names(config, "layers_pattern")
    )


def wrong_rank(ref: ModuleRef, found: int, declared: int) -> LoaderRefusesError:
    """The refusal of a layer whose tensors do not have the rank that is told."""
    return LoaderRefusesError(f"layer {ref.module} has rank {found} where {declared} is declared")


def _refuse_what_is_not_understood(kind: type[Any], config: Mapping[str, Any]) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for field, value in config.items():
        if field in _UNDERSTOOD or field in _WITHOUT_EFFECT:
            continue
        if field == "init_lora_weights" and value in (*_WITHOUT_EFFECT_AT_FIRST, *_AT_RANDOM):
            continue
        if value and value != "none" and value != defaults.get(field):
            raise UnknownEffectError(f"configuration field {field[:80]!r} is not understood")


def _pattern(config: Mapping[str, Any], field: str) -> dict[str, Any]:
    pattern = config.get(field) or {}
    if not isinstance(pattern, dict):
        raise _invalid(field, pattern)
    return pattern


def _names(config: Mapping[str, Any], field: str) -> str | Iterable[str] | None:
    value = config.get(field)
    if value is None or value == []:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise _invalid(field, value)


def _whole_numbers(value: Any) -> bool:
    every = value if isinstance(value, list) else [value]
    return all(isinstance(each, int) and not isinstance(each, bool) for each in every)


def _rank(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**20:
        raise _invalid(field, value)
    return value


def _alpha(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**40:
        raise _invalid(field, value)
    return float(value)


def _invalid(field: str, value: Any) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.ADAPTER_METADATA_INVALID,
        f"The adapter's configuration has {field} = {str(value)[:80]!r}.",
        remedy="Save the adapter again with peft or diffusers.",
        metadata={"field": field},
    )
