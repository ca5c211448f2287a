"""The concept library: what is forbidden, with the pictures that say what is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from loragate_server.access.identity import USER, Permission
from loragate_server.concepts.thumbnails import thumbnail
from loragate_server.console.assets import FOR_EVER, OWN_HEADERS
from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.references import viewing
from loragate_server.console.pages.rows import Row, row
from loragate_server.console.sources import SOURCES
from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.changes.change import Change
from loragate_server.record.recorder import MAX_PAGE_SIZE, Recorder
from loragate_server.record.search import Search
from loragate_server.severity import SEVERITIES
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

if TYPE_CHECKING:
    from loragate_server.concepts.concept import Concept


@dataclass(frozen=True)
class ConceptView:
    """One concept, in words.

    Attributes:
        hands: who shows it, and how sure one may be with one alone.
        pictures: the digests that the pictures are served by; empty where none may be shown.
        veiled: whether each is blurred until the reader wants to see it.
        hidden: whether none may be shown, because of its category.
    """

    concept_id: str
    name: str
    category: str
    severity: str
    role: str
    prompts: tuple[str, ...]
    hands: str
    pictures: tuple[str, ...]
    veiled: bool
    hidden: bool


async def concepts(request: web.Request) -> web.Response:
    """The forbidden concepts, gravest first."""
    sources = request.app[SOURCES]
    library = sources.library()
    ordered = sorted(library.forbidden, key=lambda one: (-SEVERITIES.index(one.severity), one.name))
    return page(
        request,
        "concepts",
        digest=library.digest,
        neutral=len(library.neutral),
        uncalibrated=uncalibrated(request, [one.concept_id for one in library.forbidden]),
        editable=sources.editing is not None,
        may_edit=_may_edit(request),
        concepts=[_view(request, one) for one in ordered],
    )


async def concept(request: web.Request) -> web.Response:
    """One concept, and recent verdicts in which it played a part."""
    wording, sources = request[WORDING], request.app[SOURCES]
    try:
        found = sources.library().get(request.match_info["concept_id"])
    except NoDecisionError:
        retired = await _retired(request)
        if retired is None:
            raise
        raise web.HTTPSeeOther(
            str(address(request, "change", change_id=retired.change_id))
        ) from None
    rows = await asyncio.to_thread(_findings, wording, sources.recorder, found.concept_id)
    return page(
        request,
        "concept",
        concept=_view(request, found),
        uncalibrated=uncalibrated(request, [found.concept_id]),
        rows=rows,
        looked_at=MAX_PAGE_SIZE,
        may_edit=_may_edit(request) and found.role == "forbidden",
    )


async def _retired(request: web.Request) -> Change | None:
    """The change that took a concept out of the library, where people made one in the console."""
    works = request.app[SOURCES].editing
    if works is None:
        return None
    return await asyncio.to_thread(works.changes.last_of, request.match_info["concept_id"])


def _may_edit(request: web.Request) -> bool:
    allowed = Permission.EDIT_CONCEPTS in request[USER].permissions
    return allowed and request.app[SOURCES].editing is not None


async def picture(request: web.Request) -> web.Response:
    """A small version of a reference picture; only pictures of the library can be named."""
    sources = request.app[SOURCES]
    found = sources.library().get(request.match_info["concept_id"])
    if found.category in sources.sensitive_categories:
        raise web.HTTPNotFound
    wanted = request.match_info["sha256"]
    for file, sha256 in zip(found.picture_files, found.picture_sha256, strict=True):
        if sha256 == wanted:
            data = await asyncio.to_thread(thumbnail, file, sha256)
            request[OWN_HEADERS] = {"Cache-Control": FOR_EVER}
            return web.Response(body=data, content_type="image/png")
    raise web.HTTPNotFound


def _findings(wording: Wording, recorder: Recorder, concept_id: str) -> list[Row]:
    """Of the newest verdicts those in which the policy acted on the concept."""
    newest, _ = recorder.search(Search(), MAX_PAGE_SIZE)
    return [
        row(wording, verdict)
        for verdict in newest
        if any(
            finding.evidence.concept_id == concept_id and finding.verdict is not VerdictKind.ALLOW
            for finding in verdict.decision.findings
        )
    ]


def _view(request: web.Request, concept: Concept) -> ConceptView:
    wording = request[WORDING]
    hidden = concept.category in request.app[SOURCES].sensitive_categories
    return ConceptView(
        concept_id=concept.concept_id,
        name=printable(concept.called(wording.language)),
        category=wording.name("category", concept.category),
        severity=wording.name("severity", concept.severity),
        role=wording(f"concepts.role_{concept.role}"),
        prompts=tuple(printable(prompt) for prompt in concept.prompts),
        hands=_hands(wording, concept),
        pictures=() if hidden else concept.picture_sha256,
        veiled=viewing(request).veils(concept.severity),
        hidden=hidden,
    )


def uncalibrated(request: web.Request, concept_ids: Sequence[str]) -> list[str]:
    """A sentence for each base model on which no calibration speaks for some of the concepts."""
    wording, found = request[WORDING], []
    for base_model, unknown in sorted(request.app[SOURCES].uncalibrated().items()):
        names = [one for one in concept_ids if one in unknown]
        if names and len(names) == len(concept_ids):
            found.append(wording("concepts.uncalibrated_all", base=printable(base_model)))
        elif names:
            shown = ", ".join(names)
            found.append(
                wording("concepts.uncalibrated_some", base=printable(base_model), names=shown)
            )
    return found


def _hands(wording: Wording, concept: Concept) -> str:
    if len(concept.hands) < 2:
        return wording("concepts.hands_one")
    names = ", ".join(concept.hands)
    return wording("concepts.hands_several", count=len(concept.hands), names=names)
