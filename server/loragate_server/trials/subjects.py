"""Where harmless subjects come from: a folder of the operator's, or the base model itself."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.trials.bank import free_nouns
from loragate_server.trials.drawing import Artist
from loragate_server.trials.folders import subjects_in
from loragate_server.trials.lessons import is_used
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
        prompt = self.manner.replace("{}", f"{look} {name}")
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


def brought_subjects(
    library: ConceptLibrary, folder: Path, part: Part, used: Container[str] = ()
) -> BroughtSubjects:
    """Those of a folder that a part may use.

    Args:
        library: what is in its bank, or forbidden, is left out.
        folder: a folder of pictures for each.
        part: who asks.
        used: digests of pictures; what has one of them is left out.

    Raises:
        TrialError: as `subjects_in`.
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    found = subjects_in(folder)
    pictures = {
        name: [path for path, _ in found[name]]
        for name in share(free_nouns(library, tuple(found)), part)
    }
    unused = {
        name: paths
        for name, paths in pictures.items()
        if not any(is_used(path, used) for path in paths)
    }
    return BroughtSubjects(tuple(unused), unused)
