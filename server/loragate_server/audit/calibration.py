"""Calibration: what harmless adapters score, so that an operator sets a false-block rate.

Split-conformal p-values (Vovk et al., "Algorithmic Learning in a Random World"; Angelopoulos and
Bates, arXiv 2107.07511): if a new harmless adapter is exchangeable with n that were set aside, its
p-value (1 + how many of them score at least as high) / (n + 1) is at most a with probability at
most a, whatever the score is. Over many concepts the highest score of each adapter is compared
(Westfall and Young's maxT), so the rate holds per adapter, not per concept.

Beyond the highest of n scores a p-value could never fall under 1 / (n + 1). There the tail is taken
as exponential with the mean excess of the top tenth (peaks over threshold); this only orders what
is already beyond everything seen.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import exp, floor
from pathlib import Path
from statistics import NormalDist, fmean, stdev

from pydantic import TypeAdapter, ValidationError

from loragate_server.files import whole_file

FORMAT_VERSION = 2
MINIMUM_HARMLESS = 20
_LOW_SHARE, _HIGH_SHARE = 0.5, 0.75
"""Shares of harmless adapters that end at the screen, at least and at most."""


RESPONSE_SHARE = 1 / 3
"""Weight of the response stage in the final score. Of 0, 1/4, 1/3, 1/2, 3/4 and 1, this one held 23
learned and 24 harmless adapters of the development split of `benchmarks/audit` furthest apart."""


class CalibrationError(Exception):
    """A calibration cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Binding:
    """What a calibration is good for. Everything has to match.

    Attributes:
        plans: names the probes and gradients that scores are made of.
    """

    engine_version: str
    base_digest: str
    library_digest: str
    plans: str


@dataclass(frozen=True)
class AdapterScores:
    """What one adapter of the calibration scored.

    Attributes:
        screen: by concept, the screen's score.
        response: the same for the concepts that the response stage looked at.
        learned: concepts that it is known to have learned; empty for a harmless one.
    """

    sha256: str
    screen: Mapping[str, float]
    response: Mapping[str, float]
    learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """The scores of the adapters that were set aside.

    Attributes:
        low: every concept whose screen score reaches it was looked at by the response stage.
        harmless: at least `MINIMUM_HARMLESS`.
        learned: adapters that hold a concept; may be empty, then nothing ends at the screen.
        weights: of the screen's votes, by the role of a layer; empty: all layers weigh alike.
    """

    binding: Binding
    low: float
    harmless: tuple[AdapterScores, ...]
    learned: tuple[AdapterScores, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    digest: str = field(default="", compare=False)

    def require(self, binding: Binding) -> None:
        """Refuses another engine, base model, library or plan.

        Raises:
            CalibrationError: stale or foreign.
        """
        for name, have in asdict(self.binding).items():
            want = getattr(binding, name)
            if have != want:
                raise CalibrationError(
                    f"the calibration was made for {name.replace('_', ' ')} {have[:12]}, "
                    f"this is {want[:12]}; make a new one with `loragate-server calibrate`"
                )

    @cached_property
    def _gates(self) -> dict[float, Gate]:
        return {}

    def at(self, miss_rate: float) -> Gate:
        """The thresholds and distributions for one miss rate of the screen."""
        if miss_rate not in self._gates:
            self._gates[miss_rate] = _gate(self, miss_rate)
        return self._gates[miss_rate]


@dataclass(frozen=True)
class Gate:
    """A calibration at one miss rate.

    Attributes:
        threshold: an adapter ends at the screen when all its concepts score below; concepts
            below it are not looked at again.
        family: rising, the highest final score of each harmless adapter.
        by_concept: the same for each concept alone.
    """

    threshold: float
    family: tuple[float, ...]
    by_concept: Mapping[str, tuple[float, ...]]

    def family_p_value(self, score: float) -> float:
        """How often the most suspicious concept of a harmless adapter scores so high."""
        return conformal_p_value(self.family, score)

    def p_value(self, concept_id: str, score: float) -> float:
        """How often this concept scores so high on a harmless adapter."""
        return conformal_p_value(self.by_concept[concept_id], score)


def final_score(screen: float, response: float | None) -> float:
    """One score of both stages, or the screen's where the concept ended there."""
    return screen if response is None else screen + RESPONSE_SHARE * (response - screen)


def conformal_p_value(rising: Sequence[float], score: float) -> float:
    """The p-value of a score among those of harmless adapters, sorted; see the module."""
    count = len(rising)
    higher = count - bisect_left(rising, score)
    if higher:
        return (1 + higher) / (count + 1)
    top = rising[-max(2, count // 10) :]
    scale = max(fmean(top) - top[0], 1e-3)
    return exp(-(score - rising[-1]) / scale) / (count + 1)


def learned_p_values(made: Calibration, miss_rate: float) -> dict[str, list[float]]:
    """By concept, the family p-values of the adapters that are known to have learned it."""
    gate = made.at(miss_rate)
    found: dict[str, list[float]] = {}
    for one in made.learned:
        for concept in one.learned:
            screened = one.screen[concept]
            responded = one.response.get(concept) if screened >= gate.threshold else None
            score = final_score(screened, responded)
            found.setdefault(concept, []).append(gate.family_p_value(score))
    return found


def miss_rates(
    made: Calibration, rates: Sequence[float], miss_rate: float = 0.01
) -> dict[float, float] | None:
    """Share of learned concepts that each `block_p_value` would miss; None without any."""
    p_values = [p for every in learned_p_values(made, miss_rate).values() for p in every]
    if not p_values:
        return None
    return {rate: sum(p > rate for p in p_values) / len(p_values) for rate in rates}


def low_threshold(screen_maxima: Sequence[float]) -> float:
    """The lowest threshold that any miss rate can ask for."""
    return _quantile(sorted(screen_maxima), _LOW_SHARE)


def _gate(made: Calibration, miss_rate: float) -> Gate:
    threshold = max(made.low, min(_learned_bound(made, miss_rate), _harmless_bound(made)))
    by_concept: dict[str, list[float]] = {}
    family = []
    for one in made.harmless:
        finals = {
            concept: final_score(s, one.response.get(concept) if s >= threshold else None)
            for concept, s in one.screen.items()
        }
        family.append(max(finals.values()))
        for concept, value in finals.items():
            by_concept.setdefault(concept, []).append(value)
    rising = {concept: tuple(sorted(values)) for concept, values in by_concept.items()}
    return Gate(threshold, tuple(sorted(family)), rising)


def _learned_bound(made: Calibration, miss_rate: float) -> float:
    """The screen score that at most `miss_rate` of learned concepts fall below.

    From the scores themselves where there are enough, else from a normal fit to them.
    """
    scores = sorted(one.screen[c] for one in made.learned for c in one.learned)
    if len(scores) < 2:
        return made.low
    fitted = NormalDist(fmean(scores), max(stdev(scores), 1e-6)).inv_cdf(miss_rate)
    rank = floor(miss_rate * (len(scores) + 1))
    return min(fitted, scores[rank - 1]) if rank else fitted


def _harmless_bound(made: Calibration) -> float:
    return _quantile(sorted(max(one.screen.values()) for one in made.harmless), _HIGH_SHARE)


def _quantile(rising: Sequence[float], share: float) -> float:
    return rising[min(len(rising) - 1, floor(share * len(rising)))]


_adapter = TypeAdapter(Calibration)


def save_calibration(made: Calibration, file: Path) -> None:
    """Writes a calibration, whole or not at all."""
    values = _adapter.dump_python(made, mode="json", exclude={"digest"})
    with whole_file(file) as partial:
        partial.write_text(json.dumps(values, sort_keys=True) + "\n", encoding="utf-8")


def load_calibration(file: Path) -> Calibration:
    """Reads a calibration.

    Raises:
        CalibrationError: unreadable, damaged, or of another format; it is not looked at whom it
            is for, see `Calibration.require`.
    """
    try:
        data = file.read_bytes()
        values = json.loads(data)
        values["digest"] = hashlib.sha256(data).hexdigest()
        made = _adapter.validate_python(values)
    except OSError as error:
        raise CalibrationError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, ValidationError) as error:
        raise CalibrationError(
            f"{file} is no calibration ({type(error).__name__}); make a new one with "
            "`loragate-server calibrate`"
        ) from error
    if made.format_version != FORMAT_VERSION:
        raise CalibrationError(f"{file} has format {made.format_version}, not {FORMAT_VERSION}")
    if len(made.harmless) < MINIMUM_HARMLESS:
        raise CalibrationError(
            f"{file} rests on {len(made.harmless)} harmless adapters; at least "
            f"{MINIMUM_HARMLESS} are needed"
        )
    return made
