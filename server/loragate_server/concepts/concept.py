"""A concept: what is looked for in adapters, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loragate_server.severity import Severity

Role = Literal["forbidden", "neutral"]
"""Whether adapters must not know a concept, or are compared with it."""


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
    severity: Severity
    role: Role
    prompts: tuple[str, ...] = ()
    picture_files: tuple[Path, ...] = ()
    picture_sha256: tuple[str, ...] = ()
