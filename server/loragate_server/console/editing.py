"""`Editing`: brings accepted changes of the library into force, in the background."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol, cast

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash
from loragate_server.record.changes.change import Change, ChangeKind, Proposal
from loragate_server.record.changes.changes import ConceptChanges

if TYPE_CHECKING:  # loading it for its type alone would load torch
    from loragate_server.concepts.concept import Concept
    from loragate_server.concepts.library import ConceptLibrary
    from loragate_server.severity import Severity

_log = logging.getLogger(__name__)


class Editor(Protocol):
    """Whoever changes the library that is served; each gives the new digest of the library."""

    async def create(self, concept: Concept, pictures: Sequence[bytes], leash: Leash) -> str:
        """Adds a concept."""

    async def replace(
        self, concept: Concept, pictures: Sequence[bytes], leash: Leash, before: str
    ) -> str:
        """Changes one, if `before` is its digest when its turn has come."""

    async def remove(self, concept_id: str, leash: Leash, before: str) -> str:
        """Takes one out, if `before` is its digest when its turn has come."""

    async def adopt(self, leash: Leash) -> str:
        """Brings the folder into force as it is, whoever has changed it."""


@dataclass(frozen=True)
class Progress:
    """How far a change is; `share` is that of the stage, 0 to 1."""

    stage: str
    share: float


class Editing:
    """Changes that are made, one task for each; they end with the server, and can be tried again.

    Attributes:
        changes: their record.
    """

    def __init__(
        self,
        changes: ConceptChanges,
        library: Callable[[], ConceptLibrary],
        editor: Callable[[], Editor | None],
    ) -> None:
        """Args: `editor` gives None for as long as the server cannot decide yet."""
        self.changes = changes
        self._library = library
        self._editor = editor
        self._running: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}

    def begin(self, change: Change) -> None:
        """Begins with an accepted change, unless it is being made already."""
        if change.change_id in self._running:
            return
        task = asyncio.create_task(self._make(change))
        self._running[change.change_id] = task
        task.add_done_callback(lambda _: self._forget(change.change_id))

    def progress(self, change_id: str) -> Progress | None:
        """How far a change is; None where this server is not making it."""
        if change_id not in self._running:
            return None
        return self._progress.get(change_id, Progress("", 0.0))

    async def close(self) -> None:
        """Lets go of what is being made; it stays accepted in the record."""
        for task in tuple(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _forget(self, change_id: str) -> None:
        self._running.pop(change_id, None)
        self._progress.pop(change_id, None)

    async def _make(self, change: Change) -> None:
        def report(stage: str, share: float) -> None:
            self._progress[change.change_id] = Progress(stage, share)

        digest, failure = "", ""
        try:
            digest = await self._applied(change, Leash(report=report))
        except NoDecisionError as error:
            failure = str(error)
        except Exception:
            _log.exception("the change %s of the library failed", change.change_id)
            failure = f"The server made a mistake; its log has it under {change.change_id}."
        try:
            await asyncio.to_thread(
                self.changes.ended, change.change_id, digest=digest, failure=failure
            )
        except Exception:
            # The library is as it is; the page offers to try again, which finds it so.
            _log.exception("what came of the change %s could not be recorded", change.change_id)

    async def _applied(self, change: Change, leash: Leash) -> str:
        proposal = change.proposal
        library = self._library()
        found = await asyncio.to_thread(_found, library, proposal.concept_id)
        if made := is_so(found, proposal):
            here = next((c for c in library.forbidden if c.concept_id == proposal.concept_id), None)
            if is_so(here, proposal):  # the server ended between making it and recording that
                return await asyncio.to_thread(_stored_digest, library)
        else:
            require_as_it_was(found, proposal)
        editor = self._editor()
        if editor is None:
            raise NoDecisionError(
                ErrorReason.NOT_READY,
                "The server is still starting.",
                remedy="Try again when it is ready.",
            )
        if made:  # by another server, or by this one, which failed before it came into force
            return await editor.adopt(leash)
        try:
            return await self._changed(editor, change, leash)
        except NoDecisionError as error:
            if error.reason not in (ErrorReason.CONCEPT_EXISTS, ErrorReason.CONCEPT_UNKNOWN):
                raise
            if not is_so(await asyncio.to_thread(_found, library, proposal.concept_id), proposal):
                raise
            return await editor.adopt(leash)  # another server was faster

    async def _changed(self, editor: Editor, change: Change, leash: Leash) -> str:
        proposal = change.proposal
        if proposal.kind is ChangeKind.RETIRE:
            return await editor.remove(proposal.concept_id, leash, proposal.before)
        pictures = await asyncio.to_thread(self.changes.pictures, change.change_id)
        _require_whole(pictures, proposal)
        concept = concept_of(proposal)
        if proposal.kind is ChangeKind.ADD:
            return await editor.create(concept, pictures, leash)
        return await editor.replace(concept, pictures, leash, proposal.before)


def concept_of(proposal: Proposal) -> Concept:
    """The concept that a proposal describes, not stored yet."""
    from loragate_server.concepts.concept import Concept

    return Concept(
        concept_id=proposal.concept_id,
        name=proposal.name,
        category=proposal.category,
        severity=cast("Severity", proposal.severity),
        role="forbidden",
        prompts=proposal.prompts,
        picture_hands=proposal.picture_hands,
        names=proposal.names,
    )


def is_so(found: Concept | None, proposal: Proposal) -> bool:
    """Whether a library that has this concept, or none, is already as a proposal wants it."""
    if proposal.kind is ChangeKind.RETIRE:
        return found is None
    if found is None:
        return False
    has = _by_hand(found.picture_sha256, found.picture_hands)
    keeps = not proposal.picture_sha256
    wanted = (
        proposal.name, proposal.names, proposal.category, proposal.severity, proposal.prompts,
        has if keeps else _by_hand(proposal.picture_sha256, proposal.picture_hands),
    )  # fmt: skip
    return wanted == (
        found.name, found.names, found.category, found.severity, found.prompts, has,
    )  # fmt: skip


def _by_hand(pictures: Sequence[str], hands: Sequence[str]) -> list[tuple[str, list[str]]]:
    """In a library hands take turns, so that pictures keep their order in one hand alone."""
    found: dict[str, list[str]] = {}
    for picture, hand in zip_longest(pictures, hands, fillvalue=""):
        found.setdefault(hand, []).append(picture)
    return list(found.items())


def require_as_it_was(found: Concept | None, proposal: Proposal) -> None:
    """NoDecisionError where the concept is not the one that was looked at."""
    if proposal.kind is ChangeKind.ADD:
        if found is None:
            return
        raise NoDecisionError(
            ErrorReason.CONCEPT_EXISTS,
            f"A concept {proposal.concept_id!r} exists already.",
            remedy="Reject this change, and choose another id or change that concept.",
        )
    if found is None or found.digest != proposal.before:
        from loragate_server.concepts.library import concept_changed

        raise concept_changed(proposal.concept_id)


def _require_whole(pictures: Sequence[bytes], proposal: Proposal) -> None:
    found = tuple(hashlib.sha256(one).hexdigest() for one in pictures)
    if found != proposal.picture_sha256:
        raise NoDecisionError(
            ErrorReason.CONCEPT_PICTURES_INVALID,
            "The pictures are not those that were approved.",
            remedy="Reject this change and propose it anew.",
        )


def _found(library: ConceptLibrary, concept_id: str) -> Concept | None:
    """A forbidden concept as it lies in the folder, which other servers change as well."""
    found = library.stored(concept_id)
    return found if found is not None and found.role == "forbidden" else None


def _stored_digest(library: ConceptLibrary) -> str:
    return type(library).read(library.folder).digest
