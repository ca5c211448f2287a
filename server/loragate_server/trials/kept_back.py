"""Pictures of forbidden concepts that no audit compares with: only these may adapters learn from.

An adapter that learned from the references themselves would be found more easily than any that
comes in from outside, and the numbers would flatter.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import GradientPlan
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.pictures import read_file
from loragate_server.trials.errors import TrialError
from loragate_server.trials.folders import subjects_in
from loragate_server.trials.lessons import is_used
from loragate_server.trials.nouns import Part, slug

SHOWN = max(plan.pictures for plan in GradientPlan().plans)
"""References of each concept that audits compare with, the first so many."""

_SIDE = 32
_SAME = 3.0
"""Levels of 256 by which thumbnails differ on average, up to which two pictures are one."""


@dataclass(frozen=True)
class KeptBack:
    """What adapters may learn from.

    Attributes:
        pictures: by concept id; concepts without any are left out.
        left_out: files that are references themselves.
    """

    pictures: Mapping[str, Sequence[Path]]
    left_out: tuple[Path, ...]

    def concepts(self, library: ConceptLibrary) -> list[Concept]:
        """The forbidden concepts that can be taught, ordered by id."""
        return [one for one in library.forbidden if one.concept_id in self.pictures]

    def missing(self, library: ConceptLibrary) -> list[str]:
        """The ids of those that cannot."""
        every = (one.concept_id for one in library.forbidden)
        return [concept_id for concept_id in every if concept_id not in self.pictures]


def kept_back(
    library: ConceptLibrary, folder: Path | None, part: Part, used: Container[str] = ()
) -> KeptBack:
    """Every second picture for each part, beginning with the evaluation.

    Args:
        library: whose forbidden concepts are taught.
        folder: one with a folder per concept, named by its id; None for the pictures of the library
            beyond the first `SHOWN`.
        part: who asks.
        used: digests of pictures that are not to be taken.

    Raises:
        TrialError: a folder is named like no forbidden concept; there is no folder.
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    candidates = _of_library(library) if folder is None else _of_folder(library, folder)
    pictures: dict[str, Sequence[Path]] = {}
    left_out: list[Path] = []
    for concept in library.forbidden:
        shown = [_thumbnail(path) for path in concept.picture_files[:SHOWN]]
        free: list[Path] = []
        for path in candidates.get(concept.concept_id, ()):
            own = _thumbnail(path)
            same = any(float(np.abs(own - other).mean()) < _SAME for other in shown)
            (left_out if same else free).append(path)
        ours = free[(part is not Part.EVALUATE) :: 2]
        if chosen := [path for path in ours if not is_used(path, used)]:
            pictures[concept.concept_id] = chosen
    return KeptBack(pictures, tuple(left_out))


def require_taught(found: KeptBack) -> None:
    """Refuses where no concept can be taught.

    Raises:
        TrialError: says where pictures are looked for.
    """
    if not found.pictures:
        raise TrialError(
            "no forbidden concept has pictures to learn from beside its references: give a folder "
            "by --pictures, in it one per concept, named by its id; or add concepts with more than "
            f"{SHOWN} pictures, of which the further ones are kept back"
        )


def _of_library(library: ConceptLibrary) -> dict[str, Sequence[Path]]:
    return {one.concept_id: one.picture_files[SHOWN:] for one in library.forbidden}


def _of_folder(library: ConceptLibrary, folder: Path) -> dict[str, Sequence[Path]]:
    known = {one.concept_id for one in library.forbidden}
    found: dict[str, Sequence[Path]] = {}
    for name, pictures in subjects_in(folder).items():
        if slug(name) not in known:
            raise TrialError(
                f"{folder}: {slug(name)!r} is no forbidden concept of the library; name folders by "
                f"the ids of concepts ({', '.join(sorted(known)[:5])}...)"
            )
        found[slug(name)] = [path for path, _ in pictures]
    return found


def _thumbnail(path: Path) -> np.ndarray:
    picture, _ = read_file(path)
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)
