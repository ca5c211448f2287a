"""What of a pipeline was asked about, and whether that is what is in it when it is used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from loragate.integrations._bytes import PrivateCopies
from loragate.integrations._diffusers import parts
from loragate.integrations._diffusers.ledger import Ledger, Use, exactly, together
from loragate.integrations._diffusers.seal import Seal, UnauditedChange
from loragate.integrations._together import Gatekeeper
from loragate.results import AuditResult

_Key = frozenset[tuple[str, float, float]]
_REMEMBERED = 64


class Admission:
    """Asks about adapters of one pipeline, and looks before each use that nothing else is there.

    Args:
        pipeline: the guarded pipeline.
        keeper: asks the service.
        sums: whether all weights are summed up before each picture.

    Attributes:
        ledger: what each name stands for, and what is fused.
        copies: the bytes that were asked about.
        seals: of each model, what it was made of.
    """

    def __init__(self, pipeline: Any, keeper: Gatekeeper, *, sums: bool) -> None:
        self.pipeline = pipeline
        self.ledger = Ledger()
        self.copies = PrivateCopies()
        self.seals = {name: Seal(name, one) for name, one in parts.models(pipeline).items()}
        self._keeper = keeper
        self._sums = sums
        self._asked: deque[tuple[_Key, tuple[AuditResult, ...]]] = deque(maxlen=_REMEMBERED)
        self._settled: dict[str, tuple[str, ...]] = {}
        self._here = threading.local()
        self._acts = lru_cache(maxsize=_REMEMBERED)(self._acts_in)

    @property
    def busy(self) -> bool:
        """Whether one of the guard's own changes is under way in this thread."""
        return getattr(self._here, "busy", False)

    @contextmanager
    def changing(self, *, merging: bool = False) -> Iterator[None]:
        """A change that was asked about, or that needs no question; diffusers makes it.

        Raises:
            UnauditedChange: something else was changed before, which this would cover up.
        """
        for seal in self.seals.values():
            seal.check_wiring()
        merged = parts.merged(self.pipeline)
        if merged or merging:
            # The base will be written to, and is then taken as it is.
            self.check(deep=True)
        self._here.busy = True
        try:
            yield
        finally:
            self._here.busy = False
            self._after(merged)

    def _after(self, merged: Any) -> None:
        parts.unmerge_disabled(self.pipeline)
        left = parts.merged(self.pipeline)
        if left != merged:
            written = [self.seals[name].pin_base() for name in parts.named(self.pipeline)]
            if not left:
                # Also loading and setting unfuse, as peft says in a warning. What is unloaded
                # while it is fused stays in the weights for good.
                self.ledger.take_out(stays=not any(written))
        for seal in self.seals.values():
            seal.pin_wiring()
        self._settled.clear()

    def check(self, *, deep: bool) -> None:
        """Makes sure that all models are made of what was asked about.

        Raises:
            UnauditedChange: one is not.
        """
        for seal in self.seals.values():
            seal.check(deep=deep, scale=self._scale)

    def before_use(self, name: str) -> None:
        """Asks about what acts in a model, where that has not been asked about.

        Raises:
            UnauditedChange: the model is made of something else.
            AdapterBlocked, AuditError: it may not be used so.
        """
        deep = self._sums and not getattr(self._here, "drawing", False)
        acting = self.seals[name].check(deep=deep, scale=self._scale)
        if self._settled.get(name) != acting:
            uses = self.now()
            if not self._is_asked(self._key(uses)):
                self.ask(" + ".join(acting) or "What is fused", uses)
            self._settled[name] = acting

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """One call of the pipeline."""
        if getattr(self._here, "drawing", False):
            yield
            return
        self.check(deep=self._sums)
        self._here.drawing = True
        try:
            yield
        finally:
            self._here.drawing = False

    @contextmanager
    def scaled(self, scale: float) -> Iterator[None]:
        """While diffusers multiplies the strengths in text encoders, which was asked about."""
        self._here.scale = scale
        try:
            yield
        finally:
            self._here.scale = 1.0

    @property
    def _scale(self) -> float:
        return getattr(self._here, "scale", 1.0)

    def active(self) -> dict[str, Use]:
        """The adapters that are active, also where they are turned off."""
        self.ledger.keep_only(parts.loaded_names(self.pipeline))
        self.ledger.of(parts.active_names(self.pipeline))
        return parts.active(self.pipeline, self.ledger.uses)

    def now(self) -> list[Use]:
        """What acts in the next picture."""
        names = parts.acting(self.pipeline)
        self.ledger.of(sorted(names[0] | names[1]))
        in_parts = parts.merged_in(self.pipeline)
        fused = [
            parts.only(use, denoiser=in_parts[0], encoder=in_parts[1]) for use in self.ledger.fused
        ]
        return [*self.ledger.baked, *fused, *parts.uses_in(self.ledger.uses, *names).values()]

    def ask_about_active(self, scale: float, *, once: bool = False) -> None:
        """Asks about what is active, all of it `scale` times as strong.

        Args:
            scale: factor.
            once: not again, as long as the verdict holds.
        """
        active = self.active()
        uses = (*self.ledger.in_weights, *(use.times(scale) for use in active.values()))
        if not (once and self._is_asked(self._key(uses))):
            self.ask(" + ".join(active), uses)

    def ask(
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
                use.reference(self.copies.get(use.sha256))
                for use in question
                if use.denoiser or use.text_encoder
            ]
            for question in questions
        ]
        results = tuple(self._keeper.admit(name, question) for question in effective if question)
        self._asked.append((self._key(uses), results))
        return results

    def _is_asked(self, key: _Key) -> bool:
        if not key:
            return True
        return any(
            known == key and all(map(self._keeper.still_holds, results))
            for known, results in self._asked
        )

    def _key(self, uses: Sequence[Use]) -> _Key:
        """What is asked about these uses, as far as it has an effect."""
        both = (*together(uses), *together(exactly(uses)))
        effective = (parts.only(use, **self._acts(use.sha256)) for use in both)
        return frozenset(
            (use.sha256, use.denoiser, use.text_encoder)
            for use in effective
            if use.denoiser or use.text_encoder
        )

    def _acts_in(self, sha256: str) -> dict[str, bool]:
        """In which kinds of models a file can act."""
        in_encoder = parts.in_encoder(self.copies.get(sha256))
        return {"denoiser": not all(in_encoder), "encoder": any(in_encoder)}

    def loaded(self, names: set[str], use: Use) -> None:
        """Takes down what was loaded under which names, after it was asked about."""
        self.ledger.uses |= dict.fromkeys(names, replace(use))
        for name in parts.named(self.pipeline):
            self.seals[name].pin_adapters(names)

    def strengths_set(self, names: Sequence[str], uses: Sequence[Use]) -> None:
        """Takes down at which strengths adapters act, after that was asked about."""
        self.ledger.uses |= dict(zip(names, uses, strict=True))
        for name in parts.named(self.pipeline):
            self.seals[name].pin_strengths(names)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnauditedChange(COPIED)


COPIED = (
    "A guarded pipeline, or a model of one, cannot be copied or pickled, as nobody would be asked "
    "by the copy. Copy it before the guard is put on, and guard the copy too; save_pretrained "
    "works."
)
