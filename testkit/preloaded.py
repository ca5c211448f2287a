"""Everything heavy that a server loads, before any thread exists, to be forked from.

So is the engine that most of them build: of the embedded base model and library, on one thread.
Servers that are set up otherwise build their own, and so does every one that is started cold.
"""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded, as by the command

import torch

import loragate_server.access.access
import loragate_server.app.serve
import loragate_server.cli.command
import loragate_server.console.app  # noqa: F401
from loragate_server.app import startup
from loragate_server.app.calibrating import find_calibration
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.materials import Materials
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.gradients import GradientsSection
from loragate_server.config.schema import BaseModelEntry, Config
from loragate_server.models.base import BaseModel
from loragate_server.progress import at_once, silent
from loragate_server.testing import SHARED_CACHE
from testkit.libraries import embedded_library

_THREADS = 1


class _Built:
    """What is built once, and takes the place of what builds it where a server wants the same."""

    def __init__(self) -> None:
        torch.set_num_threads(_THREADS)
        startup.quiet_libraries()
        config = Config(cache_dir=Path(os.environ.get("LORAGATE_CACHE_DIR", SHARED_CACHE)))
        self.entry, self.cache = config.base_models[0], config.probe_cache
        library = self.library = embedded_library()
        self.library_digest = library.digest
        self.base = self.load_base(self.entry)
        self.settings = startup.audit_settings(config, self.entry)
        self.materials = self.build_materials(library, self.base, self.cache)
        calibration = find_calibration(
            config, self.base, self.materials, self.settings, silent, at_once
        )
        materials = replace(self.materials, calibration=calibration)
        self.engine = AuditEngine(self.base, materials, self.settings)

    read_library = staticmethod(ConceptLibrary.read)
    load_base = staticmethod(startup.load_base)
    build_materials = staticmethod(startup.build_materials)

    def library_of(self, folder: Path) -> ConceptLibrary:
        """As `ConceptLibrary.read`; nobody changes the library that ships with the server."""
        own = folder.resolve() == self.library.folder
        return self.library if own else self.read_library(folder)

    def base_of(self, entry: BaseModelEntry) -> BaseModel:
        """As `load_base`."""
        return self.base if entry == self.entry else self.load_base(entry)

    def materials_of(
        self, library: ConceptLibrary, base: BaseModel, cache_dir: Path, *more: Any, **options: Any
    ) -> Materials:
        """As `build_materials`."""
        same = (library.digest, cache_dir) == (self.library_digest, self.cache)
        plain = options.get("settings") == GradientsSection() and not options.get("gradients")
        if base is self.base and same and plain:
            return self.materials
        return self.build_materials(library, base, cache_dir, *more, **options)

    def engine_of(
        self, base: BaseModel, materials: Materials, settings: AuditSettings
    ) -> AuditEngine:
        """As `AuditEngine`."""
        own = self.engine.materials
        same = (materials.calibration, settings) == (own.calibration, self.settings)
        alike = same and materials.gradients is own.gradients and materials.probes is own.probes
        if base is self.base and alike and torch.get_num_threads() == _THREADS:
            return self.engine
        return AuditEngine(base, materials, settings)


def _share() -> None:
    built = _Built()
    for name, own in (
        ("load_base", built.base_of),
        ("build_materials", built.materials_of),
        ("AuditEngine", built.engine_of),
    ):
        setattr(startup, name, own)
    ConceptLibrary.read = built.library_of  # type: ignore[method-assign]
    if threading.active_count() > 1:
        raise RuntimeError("a thread was started, which no fork would have")
    gc.collect()
    gc.freeze()  # no page is written to for the sake of being looked at


_share()
