"""LoHa, LoKr, Tucker LoRA and whole changes as they lie in a file: several under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_server.adapter.algebra import Hadamard, Kronecker, LowRank, Whole
from loragate_server.adapter.delta import LayerShape, WeightDelta

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
TUCKER = ("lora_down.weight", "lora_up.weight", "lora_mid.weight")
_CORES = {
    **{f"hada_t{n}": ((f"hada_w{n}_a", 0), (f"hada_w{n}_b", 0)) for n in (1, 2)},
    "lokr_t2": (("lokr_w2_a", 0), ("lokr_w2_b", 0)),
    TUCKER[2]: ((TUCKER[1], 1), (TUCKER[0], 0)),
}
"""Cores, each with its two factors and where these have their rank."""
_WHOLE = ("diff", "diff_b")
FACTOR_SUFFIXES = (*_LOHA, *_LOKR, TUCKER[2], *_WHOLE)
"""Ends of names, behind a dot, that no plain LoRA has."""

Change = LowRank | Hadamard | Kronecker | Whole


@dataclass(frozen=True)
class FactorGroup:
    """The factors of one layer (or of several that a file holds stacked).

    Attributes:
        prefix: what their names have in common.
        factors: suffix to tensor.
        alpha: as the file has it, or None.
    """

    prefix: str
    factors: Mapping[str, Tensor]
    alpha: float | None

    @property
    def names(self) -> list[str]:
        """The names of its tensors in the file."""
        return [f"{self.prefix}.{suffix}" for suffix in self.factors]

    @property
    def kind(self) -> str:
        """One of "loha", "lokr", "full" and "locon"."""
        if any(suffix in self.factors for suffix in _LOHA):
            return "loha"
        if any(suffix in self.factors for suffix in _LOKR):
            return "lokr"
        return "full" if any(suffix in self.factors for suffix in _WHOLE) else "locon"

    @property
    def out_features(self) -> int | None:
        """Rows of the change, or None where the factors do not belong together."""
        made = self.size(slice(None))
        return None if made is None else made[0]

    def size(self, rows: slice) -> tuple[int, ...] | None:
        """Size of these rows of the change, as far as the factors belong together."""
        try:
            return tuple(self._delta(self._on_meta(), 1.0, slice(None)).product()[rows].shape)
        except (KeyError, ValueError, RuntimeError, IndexError):
            return None

    @property
    def own_scale(self) -> float:
        """alpha / rank as LyCORIS has it: 1 without alpha, and where there is no rank."""
        rank = self._rank()
        return 1.0 if self.alpha is None or not rank else self.alpha / rank

    def delta(
        self, layer: LayerShape, scale: float, rows: slice, device: torch.device
    ) -> WeightDelta | None:
        """The weight delta of `layer`, or None where the shapes do not fit it."""
        if self.kind == "full" and not self._is_like(layer.weight, rows):
            return None
        meta_layer = LayerShape(torch.empty(layer.weight.shape, device="meta"))
        try:
            self._delta(self._on_meta(), scale, rows).dense(meta_layer, 1.0)
        except (KeyError, ValueError, RuntimeError, IndexError):
            return None
        whole = rows in (slice(None), slice(0, self.out_features))
        if self.kind == "locon" and not (whole and layer.weight.dim() == 4):
            return None
        factors = {key: value.to(device, torch.float32) for key, value in self.factors.items()}
        return self._delta(factors, scale, rows)

    def rounded(self, dtype: torch.dtype, device: torch.device) -> Change:
        """The change without alpha, its factors rounded to `dtype` and multiplied in float32.

        Raises:
            KeyError, ValueError, RuntimeError, IndexError: the factors do not belong together.
        """
        factors = {
            key: value.to(device, dtype).to(torch.float32) for key, value in self.factors.items()
        }
        return self._delta(factors, 1.0, slice(None))

    def _is_like(self, weight: Tensor, rows: slice) -> bool:
        """Whether a whole change has the weight's own shape: loaders differ about any other."""
        changed, bias = self.factors.get("diff"), self.factors.get("diff_b")
        if changed is None or not changed.dim() or changed[rows].shape != weight.shape:
            return False
        return bias is None or bias.shape == changed.shape[:1]

    def _on_meta(self) -> dict[str, Tensor]:
        return {key: torch.empty(value.shape, device="meta") for key, value in self.factors.items()}

    def _rank(self) -> int | None:
        # A LoKr with both parts whole has no rank; LyCORIS writes an alpha all the same.
        for suffix in ("hada_w1_b", "lokr_t2", "lokr_w2_b", "lokr_w1_b", "lora_down.weight"):
            if suffix in self.factors and self.factors[suffix].dim() > 0:
                return int(self.factors[suffix].shape[0])
        return None

    def _require_one_rank(self) -> None:
        """A core with two ranks, or others than its factors: some loaders stretch it, some end."""
        for suffix, ends in _CORES.items():
            core = self.factors.get(suffix)
            if core is None:
                continue
            ranks = {*core.shape[:2], *(self.factors[end].shape[axis] for end, axis in ends)}
            if core.dim() < 2 or len(ranks) > 1:
                raise ValueError(f"{suffix} has several ranks")

    def _delta(self, factors: Mapping[str, Tensor], scale: float, rows: slice) -> Change:
        given = set(factors)
        if self.kind == "full":
            _expect(given - {"diff_b"}, {"diff"})
            return Whole(factors["diff"], scale, factors.get("diff_b"), rows)
        self._require_one_rank()
        if self.kind == "locon":
            _expect(given, set(TUCKER))
            down, up, mid = (factors[suffix] for suffix in TUCKER)
            down, up = (each.reshape(*each.shape[:2], 1, 1) for each in (down, up))
            return LowRank(down, up, scale, mid)
        if self.kind == "loha":
            core = _LOHA[4:] if given & set(_LOHA[4:]) else ()
            _expect(given, {*_LOHA[:4], *core})
            first, second = (
                tuple(factors[suffix] for suffix in (*_LOHA[start : start + 2], *core[i : i + 1]))
                for i, start in enumerate((0, 2))
            )
            return Hadamard(first, second, scale, rows)
        left = _parts(given, "lokr_w1", None)
        right = _parts(given, "lokr_w2", "lokr_t2")
        _expect(given, {*left, *right})
        return Kronecker(
            tuple(factors[suffix] for suffix in left),
            tuple(factors[suffix] for suffix in right),
            scale,
            rows,
        )


def group_factors(
    tensors: Mapping[str, Tensor], alphas: Mapping[str, float]
) -> tuple[list[FactorGroup], dict[str, Tensor]]:
    """Takes the factor groups out of `tensors`; gives them and the tensors that are left.

    A name that also holds a plain LoRA keeps the plain one; its factors are left in the rest.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for suffix in FACTOR_SUFFIXES:
            if name.endswith(f".{suffix}"):
                found.setdefault(name.removesuffix(f".{suffix}"), {})[suffix] = tensor
    for prefix, factors in list(found.items()):
        plain = [suffix for suffix in TUCKER[:2] if f"{prefix}.{suffix}" in tensors]
        if set(factors) == {TUCKER[2]} and len(plain) == 2:
            factors.update((suffix, tensors[f"{prefix}.{suffix}"]) for suffix in plain)
        elif plain or TUCKER[2] in factors:
            del found[prefix]
    groups = [
        FactorGroup(prefix, factors, alphas.get(f"{prefix}.alpha"))
        for prefix, factors in found.items()
    ]
    taken = {name for group in groups for name in group.names}
    return groups, {name: tensor for name, tensor in tensors.items() if name not in taken}


def _parts(given: set[str], whole: str, core: str | None) -> tuple[str, ...]:
    if whole in given:
        return (whole,)
    pair = (f"{whole}_a", f"{whole}_b")
    return (*pair, core) if core is not None and core in given else pair


def _expect(given: set[str], wanted: set[str]) -> None:
    if given != wanted:
        raise ValueError(f"factors {sorted(given ^ wanted)} are missing or too many")
