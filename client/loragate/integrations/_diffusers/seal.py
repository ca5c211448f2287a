"""Remembers what a pipeline was made of when it was last asked about, and finds what has changed.

There are more ways to change a model than can be stood in for. So the guard also looks, before
each use of a model: is the base the one that was guarded, and are its adapters those that were
audited, with the strengths that were audited?
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from loragate.integrations._diffusers import walk
from loragate.integrations._diffusers.prints import Print, Prints

_SAME = 1e-5  # diffusers multiplies strengths and divides again, which rounds


class UnauditedChange(ValueError):  # noqa: N818 - its name says that it is one
    """A guarded pipeline was to be changed, or has been, in a way that cannot be audited."""


class Seal:
    """What one model was made of.

    Args:
        name: the model's name in the pipeline, for sentences.
        model: the model.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        self._base_of = Prints()
        self._adapters_of = Prints()
        self._base: dict[tuple[str, str], Print] = {}
        self._wiring: dict[str, tuple[Any, ...]] = {}
        self._tensors: dict[tuple[str, str, str], Print] = {}
        self._settings: dict[tuple[str, str, str], Any] = {}
        self._scaling: dict[tuple[str, str], float] = {}
        self.pin_wiring()
        self.pin_base()

    def pin_wiring(self) -> None:
        """Takes the modules and their code as they are now."""
        found = walk.inside(self.model)
        self._wiring = {place: walk.wiring(one) for place, one in found.base.items()}

    def pin_base(self) -> bool:
        """Takes the weights of the base as they are now, and says whether they were others.

        Raises:
            UnauditedChange: they are not there to be looked at.
        """
        before, self._base = self._base, self._base_prints(anew=True)
        return before != self._base

    def pin_adapters(self, names: Collection[str]) -> None:
        """Takes adapters as they are now: they were audited and loaded just now."""
        found = walk.inside(self.model)
        self._forget(names)
        self._tensors |= {
            key: value
            for key, value in self._adapter_prints(found, anew=True).items()
            if key[1] in names or not key[1]
        }
        for place, layer in found.layers.items():
            self._settings |= {
                (place, name, adapter): value
                for (name, adapter), value in walk.settings(layer).items()
                if adapter in names
            }
        self.pin_strengths(names)

    def _forget(self, names: Collection[str]) -> None:
        """Drops what is known of adapters that had these names before."""
        self._tensors = {key: one for key, one in self._tensors.items() if key[1] not in names}
        self._settings = {key: one for key, one in self._settings.items() if key[2] not in names}
        self._scaling = {key: one for key, one in self._scaling.items() if key[1] not in names}

    def pin_strengths(self, names: Collection[str]) -> None:
        """Takes the strengths of adapters as they are now: they were audited and set just now."""
        for place, layer in walk.inside(self.model).layers.items():
            for adapter, scale in getattr(layer, "scaling", {}).items():
                if adapter in names:
                    self._scaling[place, adapter] = float(scale)

    def check_wiring(self) -> None:
        """Makes sure that nobody has put modules or functions of his own in.

        Raises:
            UnauditedChange: somebody has.
        """
        self._compare_wiring(walk.inside(self.model))

    def check(self, *, deep: bool, scale: float = 1.0) -> tuple[str, ...]:
        """Makes sure that the model is made of what was asked about, and says what acts in it.

        Args:
            deep: sums up all weights; else only those that torch says were written.
            scale: by which all strengths are multiplied at present.

        Raises:
            UnauditedChange: it is not.
        """
        found = walk.inside(self.model)
        self._compare_wiring(found)
        self._compare_base(self._base_prints(found, anew=deep))
        adapters = self._adapter_prints(found, anew=deep)
        self._compare_adapters(adapters)
        held: dict[str, set[str]] = {place: set() for place in found.layers}
        for place, adapter, _ in adapters:
            held[place].add(adapter)
        acting = {place: walk.acting(one, held[place]) for place, one in found.layers.items()}
        for place, layer in found.layers.items():
            self._compare_settings(place, layer)
            self._compare_strengths(place, layer, scale, acting[place])
        return self._acting(held, acting)

    def _compare_base(self, now: dict[tuple[str, str], Print]) -> None:
        for place in sorted(now.keys() | self._base.keys()):
            if now.get(place) != self._base.get(place):
                raise self._changed(
                    f"the base weights {'.'.join(filter(None, place))} are not those that were "
                    "there when the guard was put on",
                    "Release the guard, change the model, and guard it anew; load adapters by "
                    "load_lora_weights.",
                )

    def _compare_adapters(self, now: dict[tuple[str, str, str], Print]) -> None:
        known = {adapter for _, adapter, _ in self._tensors}
        for key, value in now.items():
            place, adapter, _ = key
            if adapter not in known:
                raise UnauditedChange(
                    f"The adapter {adapter!r} was never audited: it was loaded past the guard, "
                    f"into {self.name} at {place}. Unload it, and load it with load_lora_weights "
                    "of the guarded pipeline."
                )
            if self._tensors.get(key) != value:
                raise self._changed(
                    f"the weights of the adapter {adapter!r} in {place} are not those that were "
                    "audited",
                    "Load adapters by load_lora_weights.",
                )

    def _compare_wiring(self, found: walk.Inside) -> None:
        for place in sorted(found.base.keys() | self._wiring.keys()):
            one = found.base.get(place)
            if one is None or walk.wiring(one) != self._wiring.get(place):
                raise self._changed(
                    f"the module {place or 'itself'} was exchanged, or has got code of its own",
                    "Load adapters by load_lora_weights; do anything else before the guard is put "
                    "on.",
                )

    def _compare_settings(self, place: str, layer: Any) -> None:
        for (name, adapter), value in walk.settings(layer).items():
            if self._settings.get((place, name, adapter), value) != value:
                raise self._changed(
                    f"{name} of the adapter {adapter!r} in {place} is {value!r}, not what it was "
                    "when it was audited",
                    "Load the adapter again.",
                )

    def _compare_strengths(
        self, place: str, layer: Any, scale: float, acting: Collection[str]
    ) -> None:
        for adapter, own in getattr(layer, "scaling", {}).items():
            asked = self._scaling.get((place, adapter), math.nan)
            wanted = asked * (scale if adapter in acting else 1.0)
            if not math.isclose(own, wanted, rel_tol=_SAME, abs_tol=1e-9):
                raise self._changed(
                    f"the adapter {adapter!r} acts in {place} {own:g} times, and was audited at "
                    f"{wanted:g}",
                    "Set strengths by set_adapters.",
                )

    def _acting(
        self, held: Mapping[str, set[str]], acting: Mapping[str, list[str]]
    ) -> tuple[str, ...]:
        """The adapters that act in all layers that hold them.

        Raises:
            UnauditedChange: one acts in some only, or twice: that is another adapter.
        """
        here: set[str] = set()
        elsewhere = {
            adapter
            for place, adapter, _ in self._tensors
            if adapter not in held.get(place, ())  # taken out of this layer
        }
        for place, names in acting.items():
            if len(set(names)) < len(names):
                raise self._changed(
                    f"an adapter is active twice in {place}: {', '.join(names)}",
                    "Name each once in set_adapters, with one strength.",
                )
            here.update(names)
            elsewhere |= held[place].difference(names)
        if partly := sorted(here & elsewhere):
            raise self._changed(
                f"the adapter {partly[0]!r} acts in some of its layers only",
                "Give strengths by block to set_adapters, which has them audited.",
            )
        return tuple(sorted(here))

    def _base_prints(
        self, found: walk.Inside | None = None, *, anew: bool
    ) -> dict[tuple[str, str], Print]:
        found = found or walk.inside(self.model)
        named = {
            (place, name): tensor
            for place, module in found.base.items()
            for name, tensor in walk.own_tensors(module)
        }
        return self._printed(named, self._base_of, anew)

    def _adapter_prints(
        self, found: walk.Inside, *, anew: bool
    ) -> dict[tuple[str, str, str], Print]:
        named = {
            (place, adapter, name): tensor
            for place, layer in found.layers.items()
            for adapter, name, tensor in walk.adapter_tensors(layer)
        }
        return self._printed(named, self._adapters_of, anew)

    def _printed(self, named: dict[Any, Any], prints: Prints, anew: bool) -> dict[Any, Print]:
        absent = [key for key, tensor in named.items() if tensor.is_meta]
        if absent:
            raise self._changed(
                f"the weights {'.'.join(filter(None, absent[0]))} are not in memory",
                "Use enable_model_cpu_offload instead of moving weights one by one.",
            )
        return dict(zip(named, prints.of(list(named.values()), anew=anew), strict=True))

    def _changed(self, what: str, remedy: str) -> UnauditedChange:
        return UnauditedChange(f"In {self.name}, {what}. {remedy}")
