"""The concept library on disk: a manifest and reference pictures.

An open library is immutable: `add` and `remove` change the folder and return a new one, so that an
audit in flight keeps the library whose digest its verdict will carry.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.entries import entry_of, require_counts, require_valid
from loragate_server.concepts.manifest import (
    FILE_NAME,
    ConceptEntry,
    Manifest,
    incomplete,
    lacking_of,
    read_manifest,
)
from loragate_server.concepts.pictures import digest_of_file, read_picture, save_picture
from loragate_server.concepts.written import explained, rewritten
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import lock, sync_folder, whole_file


@dataclass(frozen=True)
class ConceptLibrary:
    """An open library.

    Attributes:
        folder: where it lives.
        digest: lower-case hexadecimal sha256 over the manifest's content and every picture's bytes.
        concepts: every entry, ordered by id.
    """

    folder: Path
    digest: str
    concepts: tuple[Concept, ...]

    @classmethod
    def open(cls, folder: Path) -> ConceptLibrary:
        """Reads and checks a library.

        Raises:
            NoDecisionError: LIBRARY_EMPTY without a valid manifest, one forbidden concept and
                eight neutral ones; CONCEPT_PICTURES_INVALID for a picture that is of no use.
        """
        library = cls.read(folder)
        if library.lacking:
            raise incomplete(library.folder, [concept.role for concept in library.concepts])
        return library

    @classmethod
    def read(cls, folder: Path) -> ConceptLibrary:
        """As `open`, also for a library that is still being made and can decide nothing yet."""
        root = folder.resolve()
        manifest = read_manifest(root)
        concepts = tuple(
            _concept(root, entry) for entry in sorted(manifest.concepts, key=lambda e: e.id)
        )
        return cls(root, _digest(manifest, concepts), concepts)

    @property
    def lacking(self) -> str:
        """What it still needs before it can decide anything; empty where that is nothing."""
        return lacking_of([concept.role for concept in self.concepts])

    @property
    def forbidden(self) -> tuple[Concept, ...]:
        """Concepts that adapters must not learn, ordered by id."""
        return tuple(concept for concept in self.concepts if concept.role == "forbidden")

    @property
    def neutral(self) -> tuple[Concept, ...]:
        """The neutral bank, ordered by id."""
        return tuple(concept for concept in self.concepts if concept.role == "neutral")

    def get(self, concept_id: str) -> Concept:
        """One concept.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN.
        """
        for concept in self.concepts:
            if concept.concept_id == concept_id:
                return concept
        raise concept_unknown(concept_id)

    def stored(self, concept_id: str) -> Concept | None:
        """One concept as the folder holds it now, whoever has changed it since; None for none.

        Raises:
            NoDecisionError: LIBRARY_EMPTY or CONCEPT_PICTURES_INVALID; it cannot be read.
        """
        entries = read_manifest(self.folder).concepts
        entry = next((one for one in entries if one.id == concept_id), None)
        return None if entry is None else _concept(self.folder, entry)

    def add(self, concept: Concept, pictures: Sequence[bytes]) -> ConceptLibrary:
        """Stores a concept with its pictures; returns the library that holds it.

        Raises:
            NoDecisionError: CONCEPT_EXISTS, CONCEPT_PICTURES_INVALID, REQUEST_INVALID.
        """
        return self.add_all([(concept, pictures)])

    def add_all(self, additions: Sequence[tuple[Concept, Sequence[bytes]]]) -> ConceptLibrary:
        """As `add`, for several: the manifest names all of them or none."""
        for concept, pictures in additions:
            require_counts(concept, pictures)
        with self._locked():
            manifest = read_manifest(self.folder)
            for concept, pictures in additions:
                entry = self._store(concept, pictures, manifest)
                manifest = Manifest(version=1, concepts=(*manifest.concepts, entry))
            self._write(manifest)
        return ConceptLibrary.read(self.folder)

    def require_addable(self, concept: Concept, pictures: Sequence[bytes]) -> None:
        """Whether `add` would store a concept, as the library is now; writes nothing.

        Raises:
            NoDecisionError: as `add`.
        """
        require_valid(concept, len(pictures))
        for index, data in enumerate(pictures):
            read_picture(data, str(index))
        if self.stored(concept.concept_id) is not None:
            raise concept_exists(concept.concept_id)

    def _store(
        self,
        concept: Concept,
        pictures: Sequence[bytes],
        manifest: Manifest,
        avoided: Collection[str] = (),
    ) -> ConceptEntry:
        """Writes the pictures of a concept that the manifest does not name yet."""
        decoded = [read_picture(data, str(index)) for index, data in enumerate(pictures)]
        if any(known.id == concept.concept_id for known in manifest.concepts):
            raise concept_exists(concept.concept_id)
        taken = {name for known in manifest.concepts for name, _ in known.files} | set(avoided)
        free = (f"pictures/{concept.concept_id}/{index}.png" for index in count())
        names = tuple(islice((name for name in free if name not in taken), len(decoded)))
        entry = entry_of(concept, names)
        (self.folder / names[0]).parent.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, decoded, strict=True):
            save_picture(picture, self.folder / name)
        own = (self.folder / names[0]).parent
        for folder in (own, own.parent, self.folder):  # the manifest is to name nothing but these
            sync_folder(folder)
        return entry

    def replace(
        self, concept: Concept, pictures: Sequence[bytes], before: str = ""
    ) -> ConceptLibrary:
        """Stores a concept in the place of the one with its id; returns the library that holds it.

        Args:
            concept: as it is to be.
            pictures: its new ones; without any it keeps those that it has, with their hands.
            before: digest of the concept that may be changed; "" for any.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, also where the folder holds it otherwise than
                `before` says; CONCEPT_PICTURES_INVALID, REQUEST_INVALID.
        """
        if pictures:
            require_counts(concept, pictures)
        with self._locked():
            manifest = read_manifest(self.folder)
            old = next((one for one in manifest.concepts if one.id == concept.concept_id), None)
            if old is None or old.role != concept.role:
                raise concept_unknown(concept.concept_id, f"{concept.role} concept")
            self._require_as_it_was(old, before)
            rest = tuple(one for one in manifest.concepts if one is not old)
            if pictures:
                # Their files get names that the old ones do not have, so that a reader who has
                # the library open finds those until the new list is in its place.
                taken = {name for name, _ in old.files}
                new = self._store(concept, pictures, Manifest(version=1, concepts=rest), taken)
            else:
                hands = tuple(hand for _, hand in old.files if hand)
                new = entry_of(
                    dataclasses.replace(concept, picture_hands=hands),
                    tuple(name for name, _ in old.files),
                )
            changed = tuple(new if one is old else one for one in manifest.concepts)
            self._write(Manifest(version=1, concepts=changed))
            kept = {name for entry in changed for name, _ in entry.files}
            for name in {name for name, _ in old.files} - kept:
                (self.folder / name).unlink(missing_ok=True)
        return ConceptLibrary.open(self.folder)

    def remove(self, concept_id: str, before: str = "", *, usable: bool = True) -> ConceptLibrary:
        """Deletes a concept and its pictures; returns the library without it.

        Args:
            concept_id: of the concept.
            before: digest of the concept that may be deleted; "" for any.
            usable: whether what is left has to be a library that can decide.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, also where the folder holds it otherwise than
                `before` says; LIBRARY_EMPTY when too few would be left.
        """
        with self._locked():
            manifest = read_manifest(self.folder)
            removed = next((e for e in manifest.concepts if e.id == concept_id), None)
            if removed is None:
                raise concept_unknown(concept_id)
            self._require_as_it_was(removed, before)
            rest = tuple(entry for entry in manifest.concepts if entry is not removed)
            roles = [entry.role for entry in rest]
            if usable and lacking_of(roles):
                raise NoDecisionError(
                    ErrorReason.LIBRARY_EMPTY,
                    f"Without {concept_id!r} the library could decide nothing.",
                    remedy="Add another concept first.",
                )
            self._write(Manifest(version=1, concepts=rest))
            kept = {name for entry in rest for name, _ in entry.files}
            for name in {name for name, _ in removed.files} - kept:
                (self.folder / name).unlink(missing_ok=True)
        return (ConceptLibrary.open if usable else ConceptLibrary.read)(self.folder)

    def _require_as_it_was(self, entry: ConceptEntry, before: str) -> None:
        """Looked at under the lock: what was agreed on is not done to what it has become since."""
        if before and _concept(self.folder, entry).digest != before:
            raise concept_changed(entry.id)

    def _write(self, manifest: Manifest) -> None:
        file = self.folder / FILE_NAME
        with whole_file(file) as partial:
            partial.write_text(rewritten(file.read_text("utf-8"), manifest), "utf-8")
        sync_folder(self.folder)  # before old pictures are deleted, or the change is recorded

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            lock(file, wait=True)
            yield


def start_library(folder: Path, bank: ConceptLibrary | None) -> ConceptLibrary:
    """Makes a library without forbidden concepts, with a copy of another one's neutral bank.

    Raises:
        NoDecisionError: LIBRARY_EMPTY where something is in the folder already.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NoDecisionError(
            ErrorReason.LIBRARY_EMPTY,
            f"The folder {folder} is not empty.",
            remedy="Name a folder that is empty or not there yet, or remove what lies in it.",
        )
    entries: tuple[ConceptEntry, ...] = ()
    if bank is not None:
        known = read_manifest(bank.folder).concepts
        entries = tuple(entry for entry in known if entry.role == "neutral")
        for name in (name for entry in entries for name, _ in entry.files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bank.folder / name, folder / name)
    (folder / FILE_NAME).write_text(explained(Manifest(version=1, concepts=entries)), "utf-8")
    return ConceptLibrary.read(folder)


def _concept(root: Path, entry: ConceptEntry) -> Concept:
    files, hashes = [], []
    for name, _ in entry.files:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise NoDecisionError(
                ErrorReason.CONCEPT_PICTURES_INVALID,
                f"Picture {name} of concept {entry.id} leads out of the library.",
                remedy="Keep the pictures inside the library's folder, without symbolic links.",
                metadata={"picture": name},
            )
        files.append(path)
        hashes.append(digest_of_file(path))
    return Concept(
        entry.id,
        entry.name,
        entry.category,
        entry.severity,
        entry.role,
        entry.prompts,
        tuple(files),
        tuple(hashes),
        tuple(hand for _, hand in entry.files if hand),
        tuple((entry.names or {}).items()),
    )


def _digest(manifest: Manifest, concepts: Sequence[Concept]) -> str:
    digest = hashlib.sha256()
    entries = sorted(manifest.concepts, key=lambda e: e.id)
    for entry, concept in zip(entries, concepts, strict=True):
        digest.update(entry.model_dump_json(exclude_none=True).encode())
        for sha256 in concept.picture_sha256:
            digest.update(bytes.fromhex(sha256))
    return digest.hexdigest()


def concept_exists(concept_id: str) -> NoDecisionError:
    """What is said where a concept is to be added under an id that is taken."""
    return NoDecisionError(
        ErrorReason.CONCEPT_EXISTS,
        f"A concept {concept_id!r} exists already.",
        remedy="Choose another id, or remove the old concept first (`concepts remove`).",
        metadata={"concept_id": concept_id},
    )


def concept_unknown(concept_id: str, kind: str = "concept") -> NoDecisionError:
    """The error for an id that names no concept, or none of a kind."""
    concept_id = concept_id[:80]
    return NoDecisionError(
        ErrorReason.CONCEPT_UNKNOWN,
        f"No {kind} {concept_id!r} is in the library.",
        remedy="List the concepts and use one of their ids.",
        metadata={"concept_id": concept_id},
    )


def concept_changed(concept_id: str) -> NoDecisionError:
    """The error for a concept that is not the one that somebody looked at."""
    return NoDecisionError(
        ErrorReason.CONCEPT_UNKNOWN,
        f"The concept {concept_id!r} is not as it was when this was proposed.",
        remedy="Reject this change, look at the concept and propose it anew.",
        metadata={"concept_id": concept_id},
    )
