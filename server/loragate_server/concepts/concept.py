"""A concept: what is looked for in adapters, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Concept:
    """One entry of the library.

    Attributes:
        picture_files: absolute paths.
        picture_sha256: lower-case hexadecimal, one per file, of the bytes that were checked when
            the library was opened; empty in a concept that is not stored yet.
    """

    concept_id: str
    name: str
    category: str
    severity: Literal["low", "medium", "high", "critical"]
    role: Literal["forbidden", "neutral"]
    prompts: tuple[str, ...] = ()
    picture_files: tuple[Path, ...] = ()
    picture_sha256: tuple[str, ...] = ()
