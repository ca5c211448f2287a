"""What `calibrate` and `evaluate` have trained: harmless adapters, and some that learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, silent
from loragate_server.trials.campaign import Campaign, Trained
from loragate_server.trials.drawing import Artist, DrawingSettings
from loragate_server.trials.errors import TrialError
from loragate_server.trials.kept_back import KeptBack, kept_back, require_taught
from loragate_server.trials.lessons import (
    Lesson,
    Subjects,
    concept_lesson,
    harmless_lesson,
    require_subjects,
    shown_by,
)
from loragate_server.trials.nouns import NOUNS, Part, read_nouns
from loragate_server.trials.recipe import Plan, Recipe, plan_for, recipe_of
from loragate_server.trials.subjects import MANNER, brought_subjects, drawn_subjects

ADAPTERS = "adapters"
LEAST_SUBJECTS = 2
_SEEDS = {Part.CALIBRATE: 1_000_000, Part.EVALUATE: 2_000_000}
_LEARNED_SEED = 500_000


@dataclass(frozen=True)
class SchoolSettings:
    """What an operator chooses.

    Attributes:
        subjects: folder of pictures of things that nobody forbids; the base model draws them when
            None.
        pictures: folder of further pictures of concepts; see `kept_back`.
        nouns: file of words to draw; the list that ships when None.
        steps: of each training; 0 for the usual number.
        learning_rate: 0 for the usual one.
        batch: pictures a step; 0 for the usual number.
        drawing: how the base model draws.
        manner: prompt with {} for what is to be drawn.
    """

    subjects: Path | None = None
    pictures: Path | None = None
    nouns: Path | None = None
    steps: int = 0
    learning_rate: float = 0.0
    batch: int = 0
    drawing: DrawingSettings = field(default_factory=DrawingSettings)
    manner: str = MANNER


@dataclass(frozen=True)
class Class:
    """The adapters of one part, not trained yet.

    Attributes:
        kept: what those that learn concepts learn from; None where none do.
    """

    base: BaseModel
    folder: Path
    part: Part
    plan: Plan
    library: ConceptLibrary
    subjects: Subjects | None
    kept: KeptBack | None
    harmless: int
    learned: int

    @property
    def work(self) -> Iterator[tuple[Lesson, Recipe]]:
        """Lessons and recipes, harmless ones first. What has to be drawn is drawn on the way."""
        seed = _SEEDS[self.part]
        for index in range(self.harmless if self.subjects is not None else 0):
            assert self.subjects is not None  # noqa: S101 - for types
            lesson = harmless_lesson(self.subjects, index)
            yield lesson, recipe_of(self.plan, self.part, seed + index)
        if self.kept is not None:
            concepts = self.kept.concepts(self.library)
            for index in range(self.learned):
                lesson = concept_lesson(concepts, self.kept.pictures, index)
                yield lesson, recipe_of(self.plan, self.part, seed + _LEARNED_SEED + index)

    def each_taught(self, times: int) -> Class:
        """The same class with so many learning adapters for each concept that can be taught."""
        concepts = [] if self.kept is None else self.kept.concepts(self.library)
        return replace(self, learned=times * len(concepts))

    def train(self, report: Report = silent) -> list[Trained]:
        """Trains what is missing; see `Campaign.run`. Remembers what a calibration learned from."""
        campaign = Campaign(self.base, self.folder / ADAPTERS)
        seen: set[str] = set()

        def noted() -> Iterator[tuple[Lesson, Recipe]]:
            for lesson, recipe in self.work:
                seen.update(lesson.picture_digests)
                seen.update(shown_by(path) for path, _ in lesson.examples)
                yield lesson, recipe

        trained = campaign.run(noted(), self.harmless + self.learned, report)
        if self.part is Part.CALIBRATE:
            campaign.remember(seen)
        return trained


def enrol(
    base: BaseModel,
    library: ConceptLibrary,
    folder: Path,
    part: Part,
    settings: SchoolSettings,
    *,
    harmless: int,
    learned: int,
) -> Class:
    """Looks at everything that training needs, and trains nothing yet.

    Args:
        base: the base model.
        library: whose concepts are taught, and whose names are kept out of harmless ones.
        folder: where pictures and adapters are kept.
        part: what the adapters are for.
        settings: what the operator chose.
        harmless: how many.
        learned: how many that learn a concept.

    Raises:
        TrialError: there is too little to learn from.
        NoDecisionError: CONCEPT_PICTURES_INVALID.
        OSError: a file cannot be read.
    """
    if settings.manner.count("{}") != 1:
        raise TrialError(f"the prompt {settings.manner!r} has to hold {{}} once, for the noun")
    used: frozenset[str] = frozenset()
    if part is Part.EVALUATE:
        used = Campaign(base, folder / ADAPTERS).used
    subjects: Subjects | None = None
    if harmless and settings.subjects is not None:
        subjects = brought_subjects(library, settings.subjects, part, used)
    elif harmless:
        nouns = read_nouns(settings.nouns or NOUNS)
        artist = Artist(base, folder / "drawn", settings.drawing)
        subjects = drawn_subjects(library, nouns, part, artist, settings.manner)
    if subjects is not None:
        require_subjects(subjects, part, LEAST_SUBJECTS)
    kept = None
    if learned:
        kept = kept_back(library, settings.pictures, part, used)
        require_taught(kept)
    plan = plan_for(base, settings.steps, settings.learning_rate, settings.batch)
    return Class(base, folder, part, plan, library, subjects, kept, harmless, learned)
