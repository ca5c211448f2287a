"""A library that the console changes, without the probes that a server would build of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.console.editing import Editing
from loragate_server.errors import NoDecisionError
from loragate_server.progress import Leash
from loragate_server.record.changes.changes import ConceptChanges
from loragate_server.record.recorder import Recorder


def picture(colour: str = "teal", kind: str = "PNG", **options: object) -> bytes:
    """A small picture of one colour."""
    written = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(written, kind, **options)  # type: ignore[arg-type]
    return written.getvalue()


def make_library(folder: Path) -> ConceptLibrary:
    """A library of two forbidden concepts and as many neutral ones as it needs."""
    folder.mkdir()
    (folder / "library.yaml").write_text("version: 1\nconcepts: []\n")
    library = ConceptLibrary.read(folder)
    forbidden = (("mascot", "medium"), ("weapon", "critical"))
    for number, (name, severity) in enumerate(forbidden):
        concept = Concept(name, name.title(), "brand", severity, "forbidden")  # type: ignore[arg-type]
        library = library.add(concept, [picture(f"#0000{number}0")])
    for number in range(8):
        concept = Concept(f"plain-{number}", f"Plain {number}", "other", "low", "neutral")
        library = library.add(concept, [picture(f"#00{number}000")])
    return library


@dataclass
class Shelf:
    """Changes a library on disk as `LibraryKeeper` does.

    Attributes:
        library: in force.
        failure: what the next change ends with.
        gate: changes wait for it.
        ready: whether there is anybody who could make a change.
    """

    library: ConceptLibrary
    recorder: Recorder
    failure: NoDecisionError | None = None
    ready: bool = True
    gate: asyncio.Event | None = None
    editing: Editing = field(init=False)

    def __post_init__(self) -> None:
        self.editing = Editing(
            ConceptChanges(self.recorder), self.served, lambda: self if self.ready else None
        )

    def served(self) -> ConceptLibrary:
        """The library in force."""
        return self.library

    async def create(self, concept: Concept, pictures: Sequence[bytes], leash: Leash) -> str:
        """Adds a concept."""
        await self._wait(leash)
        self.library = self.library.add(concept, pictures)
        return self.library.digest

    async def replace(
        self, concept: Concept, pictures: Sequence[bytes], leash: Leash, before: str
    ) -> str:
        """Changes one."""
        await self._wait(leash)
        self.library = self.library.replace(concept, pictures, before)
        return self.library.digest

    async def remove(self, concept_id: str, leash: Leash, before: str) -> str:
        """Takes one out."""
        await self._wait(leash)
        self.library = self.library.remove(concept_id, before)
        return self.library.digest

    async def adopt(self, leash: Leash) -> str:
        """Takes the folder as it is."""
        await self._wait(leash)
        self.library = ConceptLibrary.open(self.library.folder)
        return self.library.digest

    async def _wait(self, leash: Leash) -> None:
        leash.report("probes of emoji-tiny", 0.4)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
