"""A calibration that follows its library: concepts come and go, and no file is fetched again.

The neutral bank is the yardstick of every score, so a concept that comes or goes changes nothing
of what was measured on the others. What is missing is measured on the harmless adapters that were
kept beside the calibration: what the screen says of a new concept and how far the layers agree
about all of them, at once for all adapters, and what the response stage says where an audit would
have looked. With the highest of all concepts per
adapter, thresholds and p-values are then those of a calibration that was made with this library.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.calibration import Calibration, CalibrationError, dump_calibration
from loragate_server.audit.engine import AuditSettings
from loragate_server.audit.entrance import widest_entrance
from loragate_server.audit.kept import Kept, KeptError
from loragate_server.audit.likeness import with_discord
from loragate_server.audit.materials import Materials
from loragate_server.audit.nulls import Null, NullCache
from loragate_server.audit.passes import KnownLosses
from loragate_server.audit.promise import standing_out
from loragate_server.audit.score import against_bank
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.screen import screen_each
from loragate_server.audit.screening import Screening
from loragate_server.audit.stages import Screened, mean_change, number_doubts, responses_to
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash, Report, Turns, at_once, silent

_AT_ONCE = 32
"""Adapters that the screen compares in one turn."""
_FULL_STRENGTH = Strength()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Concept:
    """A concept of the library as it is now.

    Attributes:
        shown: names what is measured of it.
        before: its id in the calibration; None where that does not know it.
    """

    concept_id: str
    row: int
    shown: str
    before: str | None


class Grower:
    """Makes a calibration fit a library that has other forbidden concepts than it was made with.

    Args:
        base: the base model.
        materials: of the library as it is now.
        calibration: made with another library, on the same base, bank, plans and engine.
        kept: what stayed of its harmless adapters.
        cache_dir: folder for what is measured, one file per concept; created when missing.
        settings: as the engine's.
        turns: when the base model is free; one call of the screen, or the response stage of one
            concept, is made in one.

    Raises:
        CalibrationError: the calibration cannot be made to fit; the message says why.
    """

    def __init__(
        self,
        base: BaseModel,
        materials: Materials,
        calibration: Calibration,
        kept: Kept,
        cache_dir: Path,
        settings: AuditSettings,
        turns: Turns = at_once,
    ) -> None:
        binding = materials.binding
        library = calibration.binding.library_digest
        calibration.require(replace(binding, library_digest=library))
        if materials.gradients is None:
            raise CalibrationError("a calibration needs concept gradients")
        if kept.calibration != calibration.digest:
            raise CalibrationError(f"{kept.file} was kept beside another calibration")
        if kept.bank != materials.bank:
            raise CalibrationError(
                "the neutral bank has changed since the calibration; make a new one with "
                "`loragate-server calibrate --again FILE`"
            )
        self._base = base
        self._materials = materials
        self._gradients = materials.gradients
        self._calibration = calibration
        self._kept = kept
        self._nulls = NullCache(cache_dir, binding, kept.bank, calibration.digest)
        self._settings = settings
        self._turns = turns
        before = {shown: concept_id for concept_id, shown in kept.concepts.items()}
        self._concepts = [
            _Concept(one.concept_id, row, shown, before.get(shown))
            for row, one in enumerate(materials.forbidden)
            for shown in (materials.shown(one),)
        ]

    @property
    def missing(self) -> tuple[str, ...]:
        """Concepts of the library that the calibration does not know."""
        return tuple(one.concept_id for one in self._concepts if one.before is None)

    def grow(self, report: Report = silent) -> Calibration:
        """The calibration for the library as it is now.

        Args:
            report: told "calibrating" and the share that is done. What it raises ends the work.

        Raises:
            CalibrationError: an adapter was not kept, or has numbers that are of no use.
            NoDecisionError: DISK_FULL.
        """
        if not all(self._kept.has(one.sha256) for one in self._calibration.harmless):
            raise CalibrationError(
                "the harmless adapters were not kept beside the calibration, so that nothing is "
                f"known of {', '.join(self.missing) or 'the library without what was removed'}; "
                "make a new one with `loragate-server calibrate`"
            )
        with self._nulls.locked(lambda: report("calibrating", 0.0)):
            wanted = [self._whole, *(one.shown for one in self._concepts)]
            nulls = {shown: self._nulls.read(shown) for shown in wanted}
            read = dict(nulls)
            try:
                self._hear(nulls, report)
                looked = self._look(nulls, report)
            except KeptError as error:
                raise CalibrationError(str(error)) from error
            for shown, null in nulls.items():
                if null != read[shown]:
                    self._nulls.write(shown, null)
            self._nulls.remove_oldest()
        report("calibrating", 1.0)
        names = {one.before: one.concept_id for one in self._concepts if one.before is not None}
        scores = (self._scores(one, nulls) for one in self._calibration.harmless)
        # what else was ever measured must not make the calibrations of two replicas differ
        made = self._made(map(_restricted, scores, looked), names)
        self._tell_of_what_stands_out(made)
        return made

    def _tell_of_what_stands_out(self, made: Calibration) -> None:
        """An adapter was harmless when a new concept was none, and may have learned just that."""
        for one in standing_out(made.harmless, made.learned):
            if one.concept_id in self.missing:
                _log.warning(
                    "base model %s: harmless adapter %s stands out by the new concept %s (p %.1g "
                    "among the others), and no adapter as grave is blocked: look at its pictures, "
                    "and where they show the concept make a calibration without it",
                    self._base.name,
                    one.sha256[:12],
                    one.concept_id,
                    one.p_value,
                )

    def known(self) -> Calibration:
        """The calibration as it is, for those concepts of the library that it knows.

        Nothing is measured, and what it says of them is what it said before, to the last bit. So
        concepts that have gone stay among those that p-values allow for.

        Raises:
            CalibrationError: it knows none of them.
        """
        now = {one.before: one.concept_id for one in self._concepts if one.before is not None}
        if not now:
            raise CalibrationError("the calibration knows no concept of the library")
        # one that has gone must not be taken for another that has its id now
        names = {
            concept_id: now.get(concept_id, f"{concept_id}@{shown[:12]}")
            for concept_id, shown in self._kept.concepts.items()
        }
        return self._made(_renamed(self._calibration.harmless, names), names)

    def _made(self, harmless: Iterable[AdapterScores], names: Mapping[str, str]) -> Calibration:
        learned = _renamed(self._calibration.learned, names)
        made = replace(
            self._calibration,
            binding=self._materials.binding,
            harmless=tuple(harmless),
            learned=tuple(one for one in learned if one.learned),
            digest="",
        )
        return replace(made, digest=hashlib.sha256(dump_calibration(made)).hexdigest())

    def _scores(self, one: AdapterScores, nulls: Mapping[str, Null]) -> AdapterScores:
        """The scores of one adapter, in the library's order; what was measured before stays."""
        every: dict[str, dict[str, Any]] = {"screen": {}, "aim": {}, "named": {}, "response": {}}
        for concept in self._concepts:
            null = nulls.get(concept.shown, Null())
            for kind, values in every.items():
                own, late = getattr(one, kind), getattr(null, kind)
                if concept.before is not None and concept.before in own:
                    values[concept.concept_id] = own[concept.before]
                elif one.sha256 in late:
                    values[concept.concept_id] = late[one.sha256]
        found = nulls.get(self._whole, Null()).profile.get(one.sha256, one.profile)
        return replace(one.with_values(every), profile=with_discord(one.profile, found))

    @property
    def _whole(self) -> str:
        """Names the whole library, which the layers' agreement is about."""
        return f"library {[one.shown for one in self._concepts]}"

    def _hear(self, nulls: dict[str, Null], report: Report) -> None:
        """Has the screen say of all adapters what it has not said yet."""
        harmless = self._calibration.harmless
        late = [
            one
            for one in self._concepts
            if one.before is None
            and any(each.sha256 not in nulls[one.shown].screen for each in harmless)
        ]
        if not late and all(one.sha256 in nulls[self._whole].profile for one in harmless):
            return
        rows = [one.row for one in late]
        heard: dict[str, Screening] = {}
        for start in range(0, len(harmless), _AT_ONCE):
            report("calibrating", start / len(harmless) / 2)
            chunk = harmless[start : start + _AT_ONCE]
            read = self._kept.adapters(self._base, (one.sha256 for one in chunk))
            adapters = [adapter for adapter, _ in read]
            screened = self._turns(partial(self._screened, adapters, rows))
            heard |= {one.sha256: each for one, each in zip(chunk, screened, strict=True)}
        profiles = {sha256: each.profile for sha256, each in heard.items()}
        nulls[self._whole] = Null(profile=profiles)
        for place, concept in enumerate(late):
            nulls[concept.shown] = replace(
                nulls[concept.shown],
                screen={sha256: each.scores[place] for sha256, each in heard.items()},
                aim={sha256: each.aims[place] for sha256, each in heard.items()},
                named={sha256: each.named[place] for sha256, each in heard.items()},
            )

    def _screened(self, adapters: Sequence[Adapter], rows: Sequence[int]) -> list[Screening]:
        found = screen_each(self._base, self._gradients, adapters, self._settings.backend)
        if not all(bool(one.gain.isfinite().all()) for one in found):
            raise CalibrationError("an adapter that was kept has values that are not finite")
        scales = self._calibration.scales
        return [Screened.of(one, self._gradients, rows, scales).screening for one in found]

    def _look(self, nulls: dict[str, Null], report: Report) -> list[frozenset[str]]:
        """Has the response stage look where it would have looked, and has not yet.

        Returns:
            By adapter the concepts at which an audit would have looked.
        """
        every = [self._scores(one, nulls) for one in self._calibration.harmless]
        entrance, standings = widest_entrance([one.screening for one in every])
        looked, open_ones = [], []
        for one, stand in zip(every, standings, strict=True):
            rows = entrance.suspects(one.screening, stand)
            looked.append(frozenset(self._concepts[row].concept_id for row in rows))
            if rows := [r for r in rows if self._concepts[r].concept_id not in one.response]:
                open_ones.append((one, rows))
        if open_ones:
            self._measure(open_ones, nulls, report)
        return looked

    def _measure(
        self,
        open_ones: Sequence[tuple[AdapterScores, Sequence[int]]],
        nulls: dict[str, Null],
        report: Report,
    ) -> None:
        """Measures some concepts on some adapters by the response stage."""
        probes = self._materials.probes
        block = self._turns(lambda: exact_batch_rows(self._base, probes, probes.plan.rows))
        known = KnownLosses() if block.exact else None
        for done, (one, rows) in enumerate(open_ones):
            report("calibrating", 0.5 + done / len(open_ones) / 2)
            [(adapter, bank_change)] = self._kept.adapters(self._base, [one.sha256])
            changes = [self._change(adapter, row, block.rows, known) for row in rows]
            scores = against_bank(-torch.cat([*changes, bank_change]), len(rows), self._named).score
            for row, score in zip(rows, scores.tolist(), strict=True):
                shown = self._concepts[row].shown
                response = {**nulls[shown].response, one.sha256: score}
                nulls[shown] = replace(nulls[shown], response=response)

    def _change(
        self, adapter: Adapter, row: int, batch_rows: int, known: KnownLosses | None
    ) -> Tensor:
        """Mean log error change of one concept, float64 [1, strata]."""
        response = self._turns(
            lambda: responses_to(
                self._base,
                self._materials,
                [(adapter, _FULL_STRENGTH)],
                [row],
                batch_rows=batch_rows,
                backend=self._settings.backend,
                leash=Leash(),
                known=known,
            )
        )
        if doubts := number_doubts(response):
            raise CalibrationError(f"adapter {adapter.sha256[:12]}: {doubts[0][1]}")
        return mean_change(response, self._materials.sets)

    @property
    def _named(self) -> list[bool]:
        plans = [probes.plan for probes in self._materials.sets]
        return [plan.named for plan in plans for _ in plan.times]


def _restricted(one: AdapterScores, looked: frozenset[str]) -> AdapterScores:
    """The same adapter, with the response stage's scores of these concepts alone."""
    kept = {concept: value for concept, value in one.response.items() if concept in looked}
    return replace(one, response=kept)


def _renamed(
    adapters: Iterable[AdapterScores], names: Mapping[str, str]
) -> Iterable[AdapterScores]:
    """The same adapters, told of the concepts in `names` alone, under the names given there."""
    for one in adapters:
        every = {
            kind: {names[k]: value for k, value in getattr(one, kind).items() if k in names}
            for kind in ("screen", "aim", "named", "response")
        }
        learned = tuple(names[concept] for concept in one.learned if concept in names)
        yield replace(one.with_values(every), learned=learned)
