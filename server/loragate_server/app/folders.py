"""The concept library, and its copy in the state directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.app.preflight import library_fault
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config, StartError
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import whole_folder


def open_library(folder: Path) -> ConceptLibrary:
    """Opens a concept library.

    Raises:
        StartError: it cannot be read, or can decide nothing.
    """
    return _open(folder, ConceptLibrary.open)


def read_library(folder: Path) -> ConceptLibrary:
    """As `open_library`, also where it is still being made."""
    return _open(folder, ConceptLibrary.read)


def _open(folder: Path, how: Callable[[Path], ConceptLibrary]) -> ConceptLibrary:
    try:
        return how(folder)
    except NoDecisionError as error:
        raise StartError(library_fault(folder, error)) from error
    except OSError as error:
        raise StartError(f"concept library {folder} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class EmbeddedLibrary(ConceptLibrary):
    """The library that ships with the package. Changing it gives a changed copy.

    Attributes:
        copy: makes the folder of the copy.
    """

    copy: Callable[[], Path] = field(compare=False, repr=False)

    def add_all(self, additions: Sequence[tuple[Concept, Sequence[bytes]]]) -> ConceptLibrary:
        """As `ConceptLibrary.add_all`, on a copy, which what is refused leaves no trace of."""
        for concept, pictures in additions:
            self.require_addable(concept, pictures)
        return ConceptLibrary.read(self.copy()).add_all(additions)

    def replace(
        self, concept: Concept, pictures: Sequence[bytes], before: str = ""
    ) -> ConceptLibrary:
        """As `ConceptLibrary.replace`, on a copy."""
        return ConceptLibrary.read(self.copy()).replace(concept, pictures, before)

    def remove(self, concept_id: str, before: str = "", *, usable: bool = True) -> ConceptLibrary:
        """As `ConceptLibrary.remove`, on a copy, which what is refused leaves no trace of."""
        self.get(concept_id)
        return ConceptLibrary.read(self.copy()).remove(concept_id, before, usable=usable)


def served_library(config: Config) -> ConceptLibrary:
    """The library that the server begins with; one that may be changed where it lies.

    Raises:
        StartError: it cannot be read.
    """
    return _changeable(open_library(config.library_folder), config)


def changeable_library(config: Config) -> ConceptLibrary:
    """As `served_library`, also where it is still being made and can decide nothing yet."""
    return _changeable(read_library(config.library_folder), config)


def _changeable(found: ConceptLibrary, config: Config) -> ConceptLibrary:
    if config.library is not None or config.library_folder == config.own_library:
        return found
    return EmbeddedLibrary(
        found.folder, found.digest, found.concepts, lambda: own_library_folder(config)
    )


def own_library_folder(config: Config) -> Path:
    """The folder of a library that may be changed; copies the embedded one when there is none.

    Raises:
        NoDecisionError: DISK_FULL, when the copy cannot be written.
    """
    folder = config.library_folder
    if config.library is not None or folder == config.own_library:
        return folder
    try:
        # Under another name until it is whole: a torn copy would be a library with fewer concepts.
        with whole_folder(config.own_library) as partial:
            shutil.copytree(folder, partial)
    except OSError as error:
        raise NoDecisionError(
            ErrorReason.DISK_FULL,
            f"The concept library cannot be copied to {config.own_library}.",
            remedy="Make room in the state directory, or configure a library of your own.",
        ) from error
    return config.own_library
