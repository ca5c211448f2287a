"""`Sources`: what the pages show and act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from loragate_server.console.editing import Editing
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.reviews import Reviews

if TYPE_CHECKING:  # loading it for its type alone would load torch
    from loragate_server.concepts.library import ConceptLibrary


@dataclass(frozen=True)
class Sources:
    """Where the console gets its facts. All of these block and are called on threads.

    Attributes:
        library: gives the library in force; it changes while the server runs.
        policy_file: replayed with other thresholds for the statistics.
        uncalibrated: gives by base model the concepts that no calibration speaks for.
        sensitive_categories: pictures of concepts of these are never shown.
        editing: makes changes of the library; None where the console makes none.
    """

    recorder: Recorder
    reviews: Reviews
    library: Callable[[], ConceptLibrary]
    policy_file: Path
    uncalibrated: Callable[[], Mapping[str, Sequence[str]]]
    sensitive_categories: frozenset[str] = frozenset()
    editing: Editing | None = None


SOURCES: Final = web.AppKey("sources", Sources)
