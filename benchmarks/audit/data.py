"""The measured zoo, read back; calibration and promise that follow from its development split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.audit.measure import FOLDER, SCREENED
from benchmarks.audit.subjects import subjects
from benchmarks.audit.zoo import concept_id
from loragate_server.audit.calibration import Binding, Calibration
from loragate_server.audit.conformal import conformal_p_value
from loragate_server.audit.likeness import Profile
from loragate_server.audit.promise import Promise
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.screening import Screening, Told
from loragate_server.audit.standing import Stood
from loragate_server.audit.witnesses import NOT_STOOD, Witnesses

CORE = tuple(concept_id(char) for char in subjects().concepts)
"""The 64 concepts that every adapter is audited against."""
MISS_RATE = 0.01


@dataclass(frozen=True)
class Measured:
    """What both stages said about one subject.

    Attributes:
        screen: concept to the screen's score, every forbidden concept of the zoo's library.
        unweighted: the same with all layers alike.
        aim: the same, the aim.
        profile: of its layers.
        response: the same for the concepts that the response stage looked at.
        degree: concept to the degree of penetration.
        understood: whether intake mapped every tensor; if not, the verdict is INCONCLUSIVE.
    """

    name: str
    family: str
    split: str
    learned: tuple[str, ...]
    screen: dict[str, float]
    unweighted: dict[str, float]
    aim: dict[str, float]
    named: dict[str, Told]
    bank: tuple[Told, ...]
    profile: Profile
    response: dict[str, float]
    degree: dict[str, float]
    understood: bool
    screen_s: float

    def audited(self) -> tuple[str, ...]:
        """The core concepts, and those of its own that are none of them."""
        return (*CORE, *(one for one in self.learned if one not in CORE))

    def score(self, concept: str, promise: Promise | None) -> float:
        """How grave the concept's witnesses are under a promise; without one the screen's score."""
        if promise is None:
            return self.screen[concept]
        # beyond the most suspicious concepts nothing was measured: the screen stands alone
        suspects, standings = self._entered(promise)
        response = self.response.get(concept) if concept in suspects else None
        return promise.gravity(
            Witnesses(self.screen[concept], self.aim[concept], response, standings[concept])
        )

    def _entered(self, promise: Promise) -> tuple[frozenset[str], dict[str, Stood]]:
        """What goes on to the response stage, and how far each concept stands out.

        Kept, because every concept asks for it. What is none of the core concepts has no standing.
        """
        if id(promise) not in self._kept:
            asked = self.audited()
            core = self._screening(CORE)
            values = promise.entrance.standing.values(core)
            standings = dict.fromkeys(asked, NOT_STOOD) | dict(zip(CORE, values, strict=True))
            rows = promise.entrance.suspects(self._screening(asked), list(standings.values()))
            self._kept[id(promise)] = frozenset(asked[row] for row in rows), standings
        return self._kept[id(promise)]

    def _screening(self, asked: Sequence[str]) -> Screening:
        return Screening(
            [self.screen[one] for one in asked],
            [self.aim[one] for one in asked],
            self.profile,
            [self.named[one] for one in asked],
            self.bank,
            range(len(asked)),
        )

    @cached_property
    def _kept(self) -> dict[int, tuple[frozenset[str], dict[str, Stood]]]:
        return {}


def read_measured(ids: Sequence[str], folder: Path = FOLDER) -> list[Measured]:
    """Everything that was measured; `ids` are the forbidden concepts in library order."""
    return [_read(file, folder / file.name, ids) for file in sorted(SCREENED.glob("*.npz"))]


def _read(screened: Path, responded: Path, ids: Sequence[str]) -> Measured:
    """One subject; where the response was not measured, the screen's unweighted scores stand."""
    with np.load(screened) as data:
        first = {name: data[name] for name in data if name not in ("gain", "spectrum", "layers")}
    second = {
        "screen": first["unweighted"],
        "named": first["named"],
        "bank": first["bank"],
        "profile": np.zeros(5),
        "suspects": np.array([], int),
        "response": np.array([]),
    }
    if responded.exists():
        with np.load(responded) as data:
            second = {name: data[name] for name in second}
    suspects = [ids[index] for index in second["suspects"]]
    profile = second["profile"].tolist()
    return Measured(
        screened.stem,
        str(first["family"]),
        str(first["split"]),
        tuple(first["learned"].tolist()),
        dict(zip(ids, second["screen"].tolist(), strict=True)),
        dict(zip(ids, first["unweighted"].tolist(), strict=True)),
        dict(zip(ids, first["aim"].tolist(), strict=True)),
        dict(zip(ids, map(_told, second["named"].tolist()), strict=True)),
        tuple(map(_told, second["bank"].tolist())),
        (profile[0], profile[1], profile[2], profile[3], profile[4]),
        dict(zip(suspects, second["response"].tolist(), strict=True)),
        dict(zip(ids, first["degree"].tolist(), strict=True)),
        bool(first["complete"]),
        float(first["screen_s"]),
    )


def _told(pair: Sequence[float]) -> Told:
    return pair[0], pair[1]


@dataclass(frozen=True)
class Study:
    """The zoo by role."""

    measured: tuple[Measured, ...]

    def of(self, family: str, split: str | None = None) -> list[Measured]:
        """Subjects of one family, and of one split."""
        return [
            one
            for one in self.measured
            if one.family == family and (split is None or one.split == split)
        ]

    def with_even_layers(self) -> Study:
        """The same study as if all layers weighed alike."""
        return Study(tuple(replace(one, screen=one.unweighted) for one in self.measured))

    @cached_property
    def calibration(self) -> Calibration:
        """From the development split alone."""
        harmless = self.of("harmless", "development")
        return Calibration(
            Binding("", "", "", ""),
            tuple(_scores(one) for one in harmless),
            tuple(_scores(one) for one in self.of("concept", "development")),
        )

    def own_p_value(self, concept: str, one: Measured) -> float:
        """The p-value of one concept alone, from the screens of harmless development adapters."""
        harmless = self.of("harmless", "development")
        return conformal_p_value(sorted(o.screen[concept] for o in harmless), one.screen[concept])

    @cached_property
    def promise(self) -> Promise:
        """The frozen decision rule that the test split is judged by."""
        return self.calibration.at(MISS_RATE)


def _scores(one: Measured) -> AdapterScores:
    return AdapterScores(
        one.name,
        {concept: one.screen[concept] for concept in CORE},
        {concept: one.aim[concept] for concept in CORE},
        {concept: one.named[concept] for concept in CORE},
        one.bank,
        one.profile,
        {concept: score for concept, score in one.response.items() if concept in CORE},
        one.learned,
    )
