"""A concept: what is looked for in adapters, and its pictures."""

from __future__ import annotations

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

    def shown(self, pictures: int) -> str:
        """What a base model is shown of it: its own prompt, and the first so many pictures.

        Two concepts of which this is equal are one to every audit, whatever they are called.
        """
        return repr((self.prompts[:1], self.picture_sha256[:pictures]))

    @property
    def hands(self) -> tuple[str, ...]:
        """The different hands, in the order in which they come; unsorted pictures are one."""
        return tuple(dict.fromkeys(self.picture_hands or ("",)))
