"""`Judge`: measures uses of adapters: the screen, then the response stage for suspects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import BlockRows
from loragate_server.audit.concluding import Measures
from loragate_server.audit.coverage import coverage_doubts
from loragate_server.audit.evidence import ConceptEvidence, HeatMap, LayerProfile
from loragate_server.audit.expecting import Expected
from loragate_server.audit.materials import Materials
from loragate_server.audit.new_words import conclude_words, uncalibrated, word_doubts
from loragate_server.audit.profile import Backend
from loragate_server.audit.promise import Promise
from loragate_server.audit.quieter import held_at_once, quieter
from loragate_server.audit.recall import Recollection
from loragate_server.audit.response import Adaptation, has_words
from loragate_server.audit.stages import Responded, Screened
from loragate_server.audit.together import Together
from loragate_server.audit.weights import NO_SCALES
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash


@dataclass(frozen=True)
class Judged:
    """What was measured of one use.

    Attributes:
        concepts: one per wanted concept; empty where there are doubts, but for those about what
            numbers of new words mean.
        doubts: why the numbers cannot vouch, as (code, sentence); empty when they can.
        times_s: stage to seconds.
        likeness_p_value: of its layers' profile; None without a calibration.
    """

    concepts: tuple[ConceptEvidence, ...] = ()
    layers: tuple[LayerProfile, ...] = ()
    heat: HeatMap | None = None
    doubts: tuple[tuple[str, str], ...] = ()
    times_s: dict[str, float] = field(default_factory=dict)
    likeness_p_value: float | None = None


@dataclass
class _Look:
    """One use on its way through the stages."""

    adaptation: Adaptation
    recollection: Recollection | None = None
    screened: Screened | None = None
    quieter: list[Screened] = field(default_factory=list)
    expected: Expected = field(default_factory=lambda: Expected((), ()))
    responded: Responded | None = None
    times_s: dict[str, float] = field(default_factory=dict)


class Judge:
    """Measures uses on the probes of one concept library.

    Args:
        base: the base model.
        materials: its probes, gradients and calibration.
        block: rows per block of a forward pass.
        backend: of the kernels.
        held_bytes: most bytes of activations that wait for their reduction.
    """

    def __init__(
        self,
        base: BaseModel,
        materials: Materials,
        *,
        block: BlockRows,
        backend: Backend,
        held_bytes: int,
    ) -> None:
        self._base = base
        self._materials = materials
        self._probes = materials.probes
        self._together = Together(
            base, materials, block=block, backend=backend, held_bytes=held_bytes
        )
        calibration = materials.calibration
        names = () if calibration is None else calibration.harmless[0].screen
        rows = {name: row for row, name in enumerate(names)}
        self._calibrated = {
            index: rows[concept.concept_id]
            for index, concept in enumerate(materials.forbidden)
            if concept.concept_id in rows
        }
        self._knows_all = calibration is None or not materials.uncalibrated

    def judge(
        self, adaptation: Adaptation, wanted: Sequence[int], leash: Leash, screen_miss_rate: float
    ) -> Judged:
        """As `judge_many`, of one use."""
        [found] = self.judge_many([adaptation], wanted, leash, screen_miss_rate)
        return found

    def judge_many(
        self,
        adaptations: Sequence[Adaptation],
        wanted: Sequence[int],
        leash: Leash,
        screen_miss_rate: float,
        recollections: Sequence[Recollection | None] = (),
    ) -> list[Judged]:
        """Measures uses, each of adapters that are active together, as it would each alone.

        Adapters that intake did not fully understand, or that change no layer, are not measured:
        numbers about a part of a file say nothing about the file.

        Args:
            adaptations: the uses: each adapter with its strength; at least one.
            wanted: indices of the forbidden concepts to look for.
            leash: deadline, cancellation and progress.
            screen_miss_rate: share of learned concepts that the screen may let through unseen by
                the response stage. Used with a calibration alone.
            recollections: by use what was measured of it before, for none or for all.

        Returns:
            One for each use, in order. What stages took that several shared is divided among them.

        Raises:
            NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
        """
        found, looks = self._look(adaptations, wanted, leash, screen_miss_rate, recollections)
        for number, adaptation in enumerate(adaptations):
            if number not in found and number not in looks:
                found[number] = self._judge_words(adaptation, wanted, leash)
        self._respond([one for one in looks.values() if one.expected.suspects], wanted, leash)
        promise = self._promise(screen_miss_rate)
        for number, look in looks.items():
            found[number] = self._judged(look, wanted, promise)
        return [found[number] for number in range(len(adaptations))]

    @property
    def knows_sizes(self) -> bool:
        """Whether it is known how many may share a launch in `first_look`."""
        return self._together.knows_few

    def try_sizes(self) -> None:
        """Finds that out, in some dozens of launches; else the first `first_look` does."""
        _ = self._together.few_widths

    def try_sizes_of_many(self) -> None:
        """As `try_sizes`, for `judge_many`."""
        self._together.try_sizes()

    def first_look(
        self,
        adaptations: Sequence[Adaptation],
        wanted: Sequence[int],
        leash: Leash,
        screen_miss_rate: float,
    ) -> list[Judged | None]:
        """As `judge_many` of the uses that need no response stage; None for the others.

        Raises:
            NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
        """
        told, looks = self._look(adaptations, wanted, leash, screen_miss_rate, few=True)
        promise = self._promise(screen_miss_rate)
        found: dict[int, Judged] = dict(told)
        for number, look in looks.items():
            if not look.expected.suspects:
                found[number] = self._judged(look, wanted, promise)
        return [found.get(number) for number in range(len(adaptations))]

    def _promise(self, screen_miss_rate: float) -> Promise | None:
        calibration = self._materials.calibration
        return None if calibration is None else calibration.at(screen_miss_rate)

    def _look(
        self,
        adaptations: Sequence[Adaptation],
        wanted: Sequence[int],
        leash: Leash,
        screen_miss_rate: float,
        recollections: Sequence[Recollection | None] = (),
        *,
        few: bool = False,
    ) -> tuple[dict[int, Judged], dict[int, _Look]]:
        """What is told without forward passes, and the screened uses; new words are in neither."""
        before = recollections or [None] * len(adaptations)
        found: dict[int, Judged] = {}
        looks: dict[int, _Look] = {}
        for number, adaptation in enumerate(adaptations):
            if doubts := coverage_doubts(adaptation):
                found[number] = Judged(doubts=doubts)
            elif not has_words(adaptation):
                looks[number] = _Look(adaptation, before[number])
            elif doubts := word_doubts(self._base, adaptation):
                found[number] = Judged(doubts=doubts)
        promise = self._promise(screen_miss_rate)
        self._screen(list(looks.values()), wanted, leash, few=few)
        for number, look in list(looks.items()):
            if look.screened is not None and not bool(look.screened.found.gain.isfinite().all()):
                doubts = (("nonfinite_weights", "A weight of the adapter is NaN or infinite."),)
                found[number] = Judged(doubts=doubts, times_s=look.times_s)
                del looks[number]
                continue
            look.expected = Expected.of(look.screened, promise, wanted, self._calibrated)
        return found, looks

    def _judged(self, look: _Look, wanted: Sequence[int], promise: Promise | None) -> Judged:
        screened, responded = look.screened, look.responded
        if responded is not None and responded.doubts:
            return Judged(doubts=responded.doubts, times_s=look.times_s)
        measured = Measures.of(
            wanted,
            look.expected,
            screened,
            responded,
            promise,
            self._calibrated,
        )
        concepts = measured.concepts(self._probes, wanted)
        if promise is not None:
            for one in look.quieter:
                beside = Measures.of_screen(wanted, one, promise, self._calibrated)
                concepts = beside.added_to(concepts)
        top = max(range(len(concepts)), key=lambda row: concepts[row].score)
        return Judged(
            concepts=concepts,
            layers=() if responded is None else responded.layers,
            heat=None if screened is None else screened.heat_map(wanted[top]),
            times_s=look.times_s,
            likeness_p_value=(
                None
                if promise is None or screened is None
                else promise.entrance.likeness.p_value(screened.screening.profile)
            ),
        )

    def _judge_words(self, adaptation: Adaptation, wanted: Sequence[int], leash: Leash) -> Judged:
        """Measures a new word, with the LoRAs whose trigger it may be; see `new_words`."""
        began = time.monotonic()
        [responded] = self._together.responses([(adaptation, tuple(wanted))], leash)
        times_s = {"response": time.monotonic() - began}
        if doubts := responded.doubts:
            return Judged(doubts=doubts, times_s=times_s)
        concepts = conclude_words(
            [self._probes.concepts[index] for index in wanted],
            responded,
            calibrated=self._materials.calibration is not None,
        )
        doubts = (uncalibrated(adaptation),)
        return Judged(concepts, responded.layers, doubts=doubts, times_s=times_s)

    def _screen(
        self, looks: Sequence[_Look], wanted: Sequence[int], leash: Leash, *, few: bool
    ) -> None:
        gradients = self._materials.gradients
        if gradients is None or not looks:
            return
        leash.check()
        leash.report("screen", 0.0)
        began = time.monotonic()
        calibration = self._materials.calibration
        scales = NO_SCALES if calibration is None else calibration.scales
        known = None if self._knows_all else list(self._calibrated)
        for some in held_at_once([look.adaptation for look in looks]):
            asked = [self._ways(look.adaptation, leash) for look in looks[some]]
            every = [one for ways in asked for one in ways]
            # for one use alone nothing is tried out: it may share a launch where that is known
            shared = [every] if len(looks) > 1 or self.knows_sizes else [[one] for one in every]
            found = [
                one
                for ways in shared
                for one in self._together.screens(
                    gradients, ways, few=few or len(looks) == 1, poll=leash.check
                )
            ]
            made = (Screened.of(one, gradients, wanted, scales, known) for one in found)
            for look, ways in zip(looks[some], asked, strict=True):
                look.screened, *look.quieter = islice(made, len(ways))
        spent_s = (time.monotonic() - began) / len(looks)
        for look in looks:
            look.times_s["screen"] = spent_s
        leash.report("screen", 1.0)

    def _ways(self, adaptation: Adaptation, leash: Leash) -> list[Adaptation]:
        """A use as it is and, where a calibration speaks for it, with what is loud turned down."""
        leash.check()
        if self._materials.calibration is None:
            return [adaptation]
        return [adaptation, *([(one, Strength())] for one in quieter(self._base, adaptation))]

    def _respond(self, suspects: Sequence[_Look], wanted: Sequence[int], leash: Leash) -> None:
        asked: list[tuple[Adaptation, tuple[int, ...]]] = []
        measured: list[_Look] = []
        for look in suspects:
            rows = tuple(wanted[row] for row in look.expected.suspects)
            look.responded = _remembered(look, rows)
            if look.responded is None:
                asked.append((look.adaptation, rows))
                measured.append(look)
            else:
                look.times_s["response"] = 0.0
        if not measured:
            return
        began = time.monotonic()
        for look, made in zip(measured, self._together.responses(asked, leash), strict=True):
            look.responded = made
        spent_s = (time.monotonic() - began) / len(measured)
        for look in measured:
            look.times_s["response"] = spent_s


def _remembered(look: _Look, rows: Sequence[int]) -> Responded | None:
    """What the response stage said before; never without a screen, which says the rest."""
    if look.recollection is None or look.screened is None:
        return None
    return look.recollection.of(look.adaptation, rows)
