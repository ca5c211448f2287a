"""How strongly each layer's factors count: rank and alpha, as diffusers and peft find them.

Without a configuration in the file, diffusers makes one of the ranks and alphas that it finds
(`get_peft_kwargs`); with one, peft reads it. Patterns in a configuration are regular expressions
for peft; they come from the uploader, so only literal names are accepted here and never run.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffusers.utils import get_peft_kwargs
from peft import LoHaConfig, LoKrConfig, LoraConfig
from torch import Tensor

from loragate_server.errors import ErrorReason, NoDecisionError

_CONFIGS = {"LORA": LoraConfig, "LOHA": LoHaConfig, "LOKR": LoKrConfig}
_DEFAULT_RANK = 8
_LITERAL_NAME = re.compile(r"\^?[\w.-]+\Z")

# Fields that say how the adapter was trained or by whom, or that the tensors themselves settle.
_WITHOUT_EFFECT = frozenset(
    {
        "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "task_type", "inference_mode", "lora_dropout", "rank_dropout", "module_dropout",
        "rank_dropout_scale", "target_modules", "exclude_modules", "layers_to_transform",
        "layers_pattern", "runtime_config", "init_weights", "use_effective_conv2d",
        "decompose_both", "decompose_factor", "lora_bias",
    }
)  # fmt: skip
_UNDERSTOOD = frozenset(
    {"r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"}
)
_HARMLESS_INITIALISATIONS = (True, False, None, "gaussian", "orthogonal")


class ScalingUnknownError(Exception):
    """Diffusers or peft would not load this, or would do something that is not understood here."""


@dataclass(frozen=True)
class Scaling:
    """Rank and alpha of every layer of one component.

    Attributes:
        rank, alpha: where no pattern matches.
        rank_pattern, alpha_pattern: literal names, matched at the end of a layer's name at a dot;
            a leading `^` ties them to its start.
        root: whether scale is alpha / sqrt(rank) (rsLoRA) instead of alpha / rank.
        dora: whether magnitudes are expected.
        bias: whether biases are used.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    root: bool = False
    dora: bool = False
    bias: bool = False

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of the layer `module`."""
        rank = max(1, int(_match(self._rank_order, module, self.rank)))
        alpha = _match(self._alpha_order, module, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.root else rank)

    @cached_property
    def _rank_order(self) -> dict[str, tuple[int, float]]:
        return _numbered(self.rank_pattern)

    @cached_property
    def _alpha_order(self) -> dict[str, tuple[int, float]]:
        return _numbered(self.alpha_pattern)


def inferred_scaling(
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
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
        ScalingUnknownError: there is no rank to be found.
    """
    if not ranks:
        raise ScalingUnknownError("no layer has a rank")
    kwargs = get_peft_kwargs(dict(ranks), dict(alphas), dict(state), is_unet=unet)
    return Scaling(
        rank=kwargs["r"],
        alpha=kwargs["lora_alpha"],
        rank_pattern=kwargs["rank_pattern"],
        alpha_pattern=kwargs["alpha_pattern"],
        dora=kwargs["use_dora"],
        bias=kwargs["lora_bias"],
    )


def declared_scaling(config: Mapping[str, Any]) -> Scaling:
    """What peft makes of an adapter configuration.

    Raises:
        ScalingUnknownError: a field would change the effect in a way that is not understood here.
        NoDecisionError: ADAPTER_METADATA_INVALID, a rank or an alpha is not a usable number.
    """
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind not in _CONFIGS:
        raise ScalingUnknownError(f"peft_type {kind} is not understood")
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
        root=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        bias=bool(config.get("lora_bias")),
    )


def _refuse_what_is_not_understood(kind: type[Any], config: Mapping[str, Any]) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for field, value in config.items():
        if field in _UNDERSTOOD or field in _WITHOUT_EFFECT:
            continue
        if field == "init_lora_weights" and value in _HARMLESS_INITIALISATIONS:
            continue
        if value and value != "none" and value != defaults.get(field):
            raise ScalingUnknownError(f"configuration field {field!r} is not understood")


def _pattern(config: Mapping[str, Any], field: str) -> dict[str, Any]:
    pattern = config.get(field) or {}
    if not isinstance(pattern, dict):
        raise _invalid(field, pattern)
    for key in pattern:
        if not _LITERAL_NAME.match(str(key)):
            raise ScalingUnknownError(f"{field} holds {key!r}, which is not the name of a layer")
    return pattern


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


def _numbered(pattern: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    return {key: (index, value) for index, (key, value) in enumerate(pattern.items())}


def _match(order: Mapping[str, tuple[int, float]], module: str, otherwise: float) -> float:
    """The value of the first pattern that peft's `get_pattern_key` would find for `module`."""
    parts = module.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    found = [order[end] for end in (*ends, f"^{module}") if end in order]
    return min(found)[1] if found else otherwise
