"""Makes a calibration: audits adapters that were set aside and keeps what they scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.calibration import MINIMUM_HARMLESS, Calibration, CalibrationError
from loragate_server.audit.effects import effects_of, typical_effects
from loragate_server.audit.engine import AuditSettings
from loragate_server.audit.entrance import widest_entrance
from loragate_server.audit.factors import Factors, adapter_of, factors_to_keep
from loragate_server.audit.kept import KeptAdapter
from loragate_server.audit.materials import Materials
from loragate_server.audit.passes import KnownLosses
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.screen import Screen, screen, votes_for
from loragate_server.audit.screening import Screening
from loragate_server.audit.stages import (
    Screened,
    bank_of,
    mean_change,
    number_doubts,
    respond,
    responses_to,
)
from loragate_server.audit.weights import Scales, fit_weights
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash, Report, silent

FULL_STRENGTH = Strength()


@dataclass(frozen=True)
class Labelled:
    """An adapter and what it is known to have learned; nothing, for a harmless one.

    Attributes:
        factors: what was kept of it before, if it is that; rounded twice, it would be another.
    """

    adapter: Adapter
    learned: tuple[str, ...] = ()
    factors: Factors | None = None


class Calibrator:
    """Scores adapters on one base model.

    Args:
        base: the base model.
        materials: with gradients; a calibration that they hold is not used.
        settings: as the engine's.
    """

    def __init__(
        self, base: BaseModel, materials: Materials, settings: AuditSettings | None = None
    ) -> None:
        if materials.gradients is None:
            raise ValueError("a calibration needs concept gradients")
        self.base = base
        self.materials = materials
        self.gradients = materials.gradients
        self.settings = settings or AuditSettings()
        block = exact_batch_rows(base, materials.probes, self.settings.batch_rows)
        self._rows = block.rows
        self._known = KnownLosses() if block.exact else None
        self._ids = [
            concept.concept_id
            for concept in materials.probes.concepts[: materials.probes.forbidden_count]
        ]

    def calibrate(
        self, harmless: Sequence[Labelled], learned: Sequence[Labelled], report: Report = silent
    ) -> Calibration:
        """Scores every adapter at full strength.

        The screen sees all of them; what no audit would pass on goes no further, the rest is
        measured by the response stage as in an audit.

        Args:
            harmless: adapters that learned no concept of the library.
            learned: adapters that learned one.
            report: told "screen" and "response" with the share that is done.

        Raises:
            CalibrationError: too few harmless adapters, or a label that is no concept.
            NoDecisionError: CANCELLED.
        """
        if len(harmless) < MINIMUM_HARMLESS:
            raise CalibrationError(
                f"{len(harmless)} harmless adapters are too few; at least {MINIMUM_HARMLESS} are "
                "needed, and 99 for a false-block rate of 1 % that rests on counting alone"
            )
        for one in learned:
            for concept in one.learned:
                if concept not in self._ids:
                    raise CalibrationError(f"{concept!r} is no forbidden concept of the library")
        every = [*harmless, *learned]
        screens, scales = self._screens(harmless, learned, report)
        entrance, standings = widest_entrance(screens[: len(harmless)])
        standings += [entrance.standing.values(one) for one in screens[len(harmless) :]]
        made = []
        for index, (one, screened, stand) in enumerate(zip(every, screens, standings, strict=True)):
            report("response", index / len(every))
            made.append(self._scores(one, screened, entrance.suspects(screened, stand)))
        report("response", 1.0)
        return Calibration(
            self.materials.binding,
            tuple(made[: len(harmless)]),
            tuple(made[len(harmless) :]),
            scales.roles,
            scales.effects,
        )

    def keep(self, harmless: Sequence[Labelled], report: Report = silent) -> dict[str, KeptAdapter]:
        """What has to stay of the harmless adapters for concepts that come later, by sha256.

        Args:
            harmless: as `calibrate` had them.
            report: told "keeping" with the share that is done.

        Raises:
            NotKeptError: one of them cannot be kept.
            CalibrationError: one of them gives numbers that are of no use.
            NoDecisionError: CANCELLED.
        """
        kept = {}
        for index, one in enumerate(harmless):
            report("keeping", index / len(harmless))
            factors = one.factors or factors_to_keep(self.base, one.adapter)
            # measured on what is kept, so that rounding moves it as it will move new concepts
            again = adapter_of(self.base, one.adapter.sha256, factors)
            kept[one.adapter.sha256] = KeptAdapter(factors, self._bank_change(again))
        report("keeping", 1.0)
        return kept

    def _screens(
        self, harmless: Sequence[Labelled], learned: Sequence[Labelled], report: Report
    ) -> tuple[list[Screening], Scales]:
        """What the screen says of each, harmless adapters first, and the scales it rests on."""
        every = [*harmless, *learned]
        found = []
        for index, one in enumerate(every):
            report("screen", index / len(every))
            found.append(self._screen(one.adapter))
        quiet, loud = found[: len(harmless)], found[len(harmless) :]
        roles = fit_weights(
            (each.layers, votes_for(each, self.gradients, self._ids.index(concept)))
            for one, each in zip(learned, loud, strict=True)
            for concept in one.learned
        )
        bank = slice(self.gradients.forbidden_count, None)
        effects = typical_effects((each.layers, effects_of(each.gain, bank)) for each in quiet)
        scales = Scales(roles, effects)
        wanted = range(len(self._ids))
        return [
            Screened.of(each, self.gradients, wanted, scales).screening for each in found
        ], scales

    def _screen(self, adapter: Adapter) -> Screen:
        found = screen(self.base, self.gradients, [(adapter, FULL_STRENGTH)], self.settings.backend)
        if not bool(found.gain.isfinite().all()):
            raise CalibrationError(f"adapter {adapter.sha256[:12]} has values that are not finite")
        return found

    def _scores(self, one: Labelled, screened: Screening, suspects: Sequence[int]) -> AdapterScores:
        response: Iterable[tuple[str, float]] = ()
        if suspects:
            found = self._respond(one.adapter, suspects)
            response = zip([self._ids[index] for index in suspects], found, strict=True)
        return AdapterScores(
            one.adapter.sha256,
            dict(zip(self._ids, screened.scores, strict=True)),
            dict(zip(self._ids, screened.aims, strict=True)),
            dict(zip(self._ids, screened.named, strict=True)),
            tuple(screened.bank),
            screened.profile,
            dict(response),
            one.learned,
        )

    def _bank_change(self, adapter: Adapter) -> Tensor:
        response = responses_to(
            self.base,
            self.materials,
            [(adapter, FULL_STRENGTH)],
            bank_of(self.materials),
            batch_rows=self._rows,
            backend=self.settings.backend,
            leash=Leash(),
            known=self._known,
        )
        if doubts := number_doubts(response):
            raise CalibrationError(f"adapter {adapter.sha256[:12]}: {doubts[0][1]}")
        return mean_change(response, self.materials.sets)

    def _respond(self, adapter: Adapter, suspects: Sequence[int]) -> list[float]:
        [responded] = respond(
            self.base,
            self.materials,
            [[(adapter, FULL_STRENGTH)]],
            suspects,
            batch_rows=self._rows,
            backend=self.settings.backend,
            leash=Leash(),
            known=self._known,
        )
        if responded.doubts:
            raise CalibrationError(f"adapter {adapter.sha256[:12]}: {responded.doubts[0][1]}")
        values: list[float] = responded.scores.score.tolist()
        return values
