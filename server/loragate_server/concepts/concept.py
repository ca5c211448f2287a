"""A concept: what is looked for in adapters, and its pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loragate_server.severity import Severity

MAX_PICTURES = 64
"""Of one concept."""

Role = Literal["forbidden", "neutral"]
"""Whether adapters must not know a concept, or are compared with it."""


@dataclass(frozen=True)
class Concept:
    """One entry of the library.

    Attributes:
        picture_files: absolute paths.
        picture_sha256: lower-case hexadecimal, one per file, of the bytes that were checked when
            the library was opened; empty in a concept that is not stored yet.
        picture_hands: one per file: who made it, see `manifest.ConceptEntry`; empty where nobody
            sorted them.
        names: what it is called in other languages, as pairs of language and name.
    """

    concept_id: str
    name: str
    category: str
    severity: Severity
    role: Role
    prompts: tuple[str, ...] = ()
    picture_files: tuple[Path, ...] = ()
    picture_sha256: tuple[str, ...] = ()
    picture_hands: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def called(self, language: str) -> str:
        """Its name in a language, else the one that it has in all of them."""
        return dict(self.names).get(language, self.name)

    def shown(self, pictures: int) -> str:
        """What a base model is shown of it: its own prompt, and the first so many pictures.

        Two concepts of which this is equal are one to every audit, whatever they are called.
        """
        return repr((self.prompts[:1], self.picture_sha256[:pictures]))

    @property
    def digest(self) -> str:
        """Lower-case hexadecimal sha256 of all that the library says of it, pictures included."""
        said = (
            self.concept_id, self.name, self.names, self.category, self.severity, self.role,
            self.prompts, self.picture_sha256, self.picture_hands,
        )  # fmt: skip
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def hands(self) -> tuple[str, ...]:
        """The different hands, in the order in which they come; unsorted pictures are one."""
        return tuple(dict.fromkeys(self.picture_hands or ("",)))
