"""How long it takes to open a library of many concepts from its folder."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.many_concepts.synthetic import concepts_of
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import (
    FILE_NAME,
    ConceptEntry,
    Manifest,
    dump_manifest,
    read_manifest,
)
from loragate_server.config.schema import EMBEDDED_LIBRARY


def opening_ms(count: int) -> dict[str, float]:
    """Milliseconds of reading the manifest, and of opening the library with a picture each."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        picture = next((EMBEDDED_LIBRARY / "pictures").rglob("*.png"))
        shutil.copyfile(picture, root / "picture.png")
        entries = tuple(
            ConceptEntry(
                id=one.concept_id,
                name=one.name,
                category=one.category,
                severity=one.severity,
                role=one.role,
                prompts=one.prompts,
                pictures=("picture.png",),
            )
            for one in concepts_of(count, 64)
        )
        (root / FILE_NAME).write_bytes(dump_manifest(Manifest(version=1, concepts=entries)))
        began = time.process_time()
        read_manifest(root)
        read_ms = (time.process_time() - began) * 1000
        began = time.process_time()
        ConceptLibrary.open(root)
        return {
            "manifest, once": read_ms,
            "opening the library, once": (time.process_time() - began) * 1000,
        }
