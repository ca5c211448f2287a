"""Many adapters, trained one after the other; those that are there already are kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from loragate_server.files import exclusive, whole_file
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, silent
from loragate_server.trials.errors import TrialError
from loragate_server.trials.lessons import Lesson
from loragate_server.trials.recipe import Recipe
from loragate_server.trials.training import METHOD, train_adapter

_SCRATCH = ".training-"


@dataclass(frozen=True)
class Trained:
    """An adapter and what it learned; nothing, for a harmless one."""

    file: Path
    learned: tuple[str, ...]


class Campaign:
    """Trains on one base model.

    A file is named by base model, pictures, captions and recipe: whoever asks for the same again
    finds it, and whoever changes something trains anew. Two who train the same wait for each other.

    Args:
        base: the base model.
        folder: where the adapters are kept.
    """

    def __init__(self, base: BaseModel, folder: Path) -> None:
        self.base = base
        self.folder = folder / base.digest[:16]

    @property
    def used(self) -> frozenset[str]:
        """Digests of all pictures that adapters of a calibration learned from.

        Raises:
            TrialError: the list of them is damaged.
        """
        try:
            return frozenset(map(str, json.loads(self._used_file.read_text("utf-8"))))
        except FileNotFoundError:
            return frozenset()
        except (ValueError, TypeError) as error:
            raise TrialError(
                f"{self._used_file} is damaged; delete it, and calibrate anew"
            ) from error

    def remember(self, digests: Iterable[str]) -> None:
        """Adds pictures to those, so that no evaluation ever takes them."""
        with whole_file(self._used_file) as partial:
            partial.write_text(json.dumps(sorted(self.used.union(digests))), "utf-8")

    @property
    def _used_file(self) -> Path:
        return self.folder / "calibrated-on.json"

    def file_of(self, lesson: Lesson, recipe: Recipe) -> Path:
        """Where an adapter is, or will be."""
        told = repr((METHOD, self.base.digest, lesson.digest, sorted(asdict(recipe).items())))
        key = hashlib.sha256(told.encode()).hexdigest()
        return self.folder / f"{lesson.name}-{key[:16]}.safetensors"

    def run(
        self,
        work: Iterable[tuple[Lesson, Recipe]],
        count: int,
        report: Report = silent,
    ) -> list[Trained]:
        """Trains what is missing; returns all, in order.

        Args:
            work: lessons, which may be drawn only when it is their turn.
            count: how many there are.
            report: told "training" with the share that is done. What it raises ends the work;
                adapters that were finished stay.

        Raises:
            TrialError: a training diverges.
            NoDecisionError: CONCEPT_PICTURES_INVALID.
            OSError: a file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = []
        with exclusive(self.folder / ".lock", lambda: report("waiting for another training", 0.0)):
            for left_over in self.folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left_over, ignore_errors=True)  # of a run that was killed
            for number, (lesson, recipe) in enumerate(work):
                file = self.file_of(lesson, recipe)
                if not file.exists():  # what is there already would make the rest look quick
                    report("training", number / count)
                    self._train(lesson, recipe, file, report, (number, count))
                found.append(Trained(file, lesson.learned))
            report("training", 1.0)
        return found

    def _train(
        self, lesson: Lesson, recipe: Recipe, file: Path, report: Report, place: tuple[int, int]
    ) -> None:
        number, count = place

        def after(step: int) -> None:
            report("training", (number + (step + 1) / recipe.steps) / count)

        with (
            tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as scratch,
            whole_file(file) as partial,
        ):
            written = Path(scratch, file.name)
            train_adapter(self.base, lesson, recipe, written, after)
            written.replace(partial)
