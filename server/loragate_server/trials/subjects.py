"""Where harmless subjects come from: a folder of the operator's, or the base model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.trials.bank import free_nouns
from loragate_server.trials.drawing import Artist
from loragate_server.trials.folders import subjects_in
from loragate_server.trials.nouns import Part, share

DRAWN = 8
"""Pictures that a base model draws for one lesson."""

MANNER = "a photo of a {}"


@dataclass(frozen=True)
class DrawnSubjects:
    """Nouns that neither the bank nor a forbidden concept has, drawn by the base model."""

    names: Sequence[str]
    artist: Artist
    manner: str = MANNER
    count: int = DRAWN

    def pictures(self, name: str, look: str, turn: int) -> Sequence[Path]:
        """Draws what was not drawn before; see `Subjects`."""
        prompt = self.manner.format(f"{look} {name}")
        numbers = range(turn * self.count, (turn + 1) * self.count)
        return [self.artist.picture(prompt, number) for number in numbers]


@dataclass(frozen=True)
class BroughtSubjects:
    """Pictures that the operator has sorted by what they show."""

    names: Sequence[str]
    brought: Mapping[str, Sequence[Path]] = field(repr=False)

    def pictures(self, name: str, look: str, turn: int) -> Sequence[Path]:
        """All there are, whatever the turn."""
        return self.brought[name]


def drawn_subjects(
    library: ConceptLibrary,
    nouns: Sequence[str],
    part: Part,
    artist: Artist,
    manner: str = MANNER,
) -> DrawnSubjects:
    """Those of the nouns that a part may use: not forbidden, and not in the bank."""
    return DrawnSubjects(share(free_nouns(library, nouns), part), artist, manner)


def brought_subjects(library: ConceptLibrary, folder: Path, part: Part) -> BroughtSubjects:
    """Those of a folder that a part may use.

    Raises:
        TrialError: as `subjects_in`.
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    found = subjects_in(folder)
    names = share(free_nouns(library, tuple(found)), part)
    return BroughtSubjects(names, {name: [path for path, _ in found[name]] for name in names})
