"""What is loaded into a pipeline under which name, how strongly, and what has been fused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loragate.reference import AdapterReference


@dataclass(frozen=True)
class Use:
    """One adapter, by the digest of its bytes, as strongly as it is used.

    Attributes:
        sha256: digest of the bytes; the name under which they are loaded may change its meaning.
        denoiser: strength for the UNet or transformer.
        text_encoder: strength for the text encoders.
    """

    sha256: str
    denoiser: float = 1.0
    text_encoder: float = 1.0

    def times(self, scale: float) -> Use:
        """The same adapter, used `scale` times as strongly."""
        return replace(self, denoiser=self.denoiser * scale, text_encoder=self.text_encoder * scale)

    def reference(self, data: bytes) -> AdapterReference:
        """The question about it."""
        return AdapterReference(
            data=data, strength=self.denoiser, text_encoder_strength=self.text_encoder
        )


class Ledger:
    """The adapters of one pipeline. Names lead to digests here and nowhere else.

    Attributes:
        uses: what each name stands for at present.
        fused: what is part of the base weights until it is unfused.
    """

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}
        self.fused: tuple[Use, ...] = ()

    def of(self, names: Iterable[str]) -> tuple[Use, ...]:
        """What names stand for.

        Raises:
            ValueError: one of them was loaded past the guard.
        """
        names = tuple(names)
        unknown = sorted(set(names) - self.uses.keys())
        if unknown:
            raise ValueError(
                f"The adapter {unknown[0]!r} was never audited: it is not loaded, or was loaded "
                "past the guard. Load it with load_lora_weights of the guarded pipeline."
            )
        return tuple(self.uses[name] for name in names)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forgets names that are no longer loaded."""
        present = set(names)
        self.uses = {name: use for name, use in self.uses.items() if name in present}


def together(*groups: Iterable[Use]) -> tuple[Use, ...]:
    """Adapters that are active at the same time; one that occurs twice adds up."""
    found: dict[str, Use] = {}
    for use in (use for group in groups for use in group):
        before = found.get(use.sha256)
        found[use.sha256] = use if before is None else _sum(before, use)
    return tuple(found.values())


def _sum(one: Use, other: Use) -> Use:
    return replace(
        one,
        denoiser=one.denoiser + other.denoiser,
        text_encoder=one.text_encoder + other.text_encoder,
    )


def weighted(uses: Sequence[Use], weights: Any) -> tuple[Use, ...]:
    """The uses with the weights of `set_adapters`: one for all, or a list with one for each.

    Raises:
        ValueError: there are not as many weights as adapters.
    """
    each = list(weights) if isinstance(weights, list | tuple) else [weights] * len(uses)
    if len(each) != len(uses):
        raise ValueError(f"There are {len(uses)} adapters but {len(each)} weights.")
    return tuple(_with_weight(use, weight) for use, weight in zip(uses, each, strict=True))


def _with_weight(use: Use, weight: Any) -> Use:
    if not isinstance(weight, Mapping):
        return replace(use, denoiser=_strongest(weight), text_encoder=_strongest(weight))
    parts = {name: value for name, value in weight.items() if name.startswith("text_encoder")}
    others = [value for name, value in weight.items() if name not in parts]
    # A part that the mapping leaves out is used at 1, as diffusers does.
    return replace(
        use, denoiser=_strongest(others or None), text_encoder=_strongest(list(parts.values()))
    )


def _strongest(weight: Any) -> float:
    """The number furthest from 0 in weights that may differ by block or layer; None is 1."""
    if weight is None:
        return 1.0
    if isinstance(weight, Mapping):
        weight = list(weight.values())
    if isinstance(weight, list | tuple):
        return max((_strongest(one) for one in weight), key=abs, default=1.0)
    return float(weight)
