"""What is loaded into a pipeline under which name, how strongly, and what has been fused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        exact: where strengths differ by block, what is really active: a file into which they are
            folded. The strengths above are then those that lie furthest from 0.
    """

    sha256: str
    denoiser: float = 1.0
    text_encoder: float = 1.0
    exact: Use | None = None

    def times(self, scale: float) -> Use:
        """The same adapter, used `scale` times as strongly."""
        return replace(
            self,
            denoiser=self.denoiser * scale,
            text_encoder=self.text_encoder * scale,
            exact=self.exact and self.exact.times(scale),
        )

    def reference(self, data: bytes) -> AdapterReference:
        """The question about it."""
        return AdapterReference(
            data=data, strength=self.denoiser, text_encoder_strength=self.text_encoder
        )


class Ledger:
    """The adapters of one pipeline. Names lead to digests here and nowhere else.

    Attributes:
        uses: what each name stands for at present.
        fused: what is part of the base weights until it is unfused, in the order of fusing.
        baked: what is part of them for good, as it was unloaded while it was fused.
    """

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}
        self.fused: tuple[Use, ...] = ()
        self.baked: tuple[Use, ...] = ()

    @property
    def in_weights(self) -> tuple[Use, ...]:
        """What is part of the base weights, for now or for good."""
        return (*self.baked, *self.fused)

    def take_out(self, *, stays: bool) -> None:
        """Nothing is fused any more; where the weights were not written to, all of it stays."""
        if stays:
            self.baked = self.in_weights
        self.fused = ()

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


def exactly(uses: Iterable[Use]) -> tuple[Use, ...]:
    """The uses with the files in which strengths by block are folded, where there are such."""
    return tuple(use.exact or use for use in uses)


def together(*groups: Iterable[Use]) -> tuple[Use, ...]:
    """Adapters that are active at the same time; one that occurs twice adds up."""
    found: dict[str, Use] = {}
    for use in (use for group in groups for use in group):
        before = found.get(use.sha256)
        found[use.sha256] = use if before is None else _sum(before, use)
    return tuple(found.values())


def _sum(one: Use, other: Use) -> Use:
    return Use(one.sha256, one.denoiser + other.denoiser, one.text_encoder + other.text_encoder)


def distinct(names: str | Iterable[str]) -> list[str]:
    """The adapters that a call names.

    Raises:
        ValueError: it names one twice, which makes peft apply it twice, at the last strength.
    """
    found = [names] if isinstance(names, str) else list(names)
    if len(set(found)) < len(found):
        raise ValueError(f"An adapter is named twice: {', '.join(found)}. Give it one strength.")
    return found


def each_weight(weights: Any, count: int) -> list[Any]:
    """The weights of `set_adapters` for each adapter: one for all, or a list with one for each.

    Raises:
        ValueError: there are not as many weights as adapters.
    """
    each = list(weights) if isinstance(weights, list | tuple) else [weights] * count
    if len(each) != count:
        raise ValueError(f"There are {count} adapters but {len(each)} weights.")
    return each


def with_weight(use: Use, weight: Any) -> Use:
    """The use with a weight of `set_adapters`, at its strongest where it differs by block."""
    if not isinstance(weight, Mapping):
        return Use(use.sha256, _strongest(weight), _strongest(weight))
    parts = {name: value for name, value in weight.items() if name.startswith("text_encoder")}
    others = [value for name, value in weight.items() if name not in parts]
    # A part that the mapping leaves out is used at 1, as diffusers does.
    return Use(use.sha256, _strongest(others or None), _strongest(list(parts.values())))


def _strongest(weight: Any) -> float:
    """The number furthest from 0 in weights that may differ by block or layer; None is 1."""
    if weight is None:
        return 1.0
    if isinstance(weight, Mapping):
        weight = list(weight.values())
    if isinstance(weight, list | tuple):
        return max((_strongest(one) for one in weight), key=abs, default=1.0)
    return float(weight)
