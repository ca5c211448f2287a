"""Changes of the concept library: those that were proposed, each with its steps."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from loragate_server.access import csrf_token, require_permission
from loragate_server.access.identity import USER, Permission
from loragate_server.console.editing import Editing
from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.concepts import uncalibrated
from loragate_server.console.pages.references import viewing
from loragate_server.console.sources import SOURCES
from loragate_server.errors import NoDecisionError
from loragate_server.record.changes.change import (
    Change,
    ChangeEvent,
    ChangeState,
    ChangeStep,
    Proposal,
)
from loragate_server.record.reviews.refusals import RefusalCode, ReviewRefused
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

_LONGEST = 2000
_STATUSES = {
    RefusalCode.STALE: 409,
    RefusalCode.NOT_OPEN: 409,
    RefusalCode.SAME_REVIEWER: 403,
}


@dataclass(frozen=True)
class StepView:
    """A step in words."""

    when: str
    who: str
    what: str
    why: str


@dataclass(frozen=True)
class ChangeView:
    """A change in words.

    Attributes:
        state: key of the wording.
        doing: how far the server is; "" where this one is not making it.
        interrupted: whether it was accepted, and this server is not making it.
        pictures: numbers of the pictures that came with it, as far as they may be shown.
        actions: what the reader may do.
    """

    change_id: str
    kind: str
    concept_id: str
    name: str
    names: tuple[tuple[str, str], ...]
    category: str
    severity: str
    prompts: tuple[str, ...]
    hands: str
    needs_second: bool
    state: str
    doing: str
    interrupted: bool
    when: str
    who: str
    steps: tuple[StepView, ...]
    pictures: tuple[int, ...]
    veiled: bool
    hidden: bool
    actions: tuple[str, ...]
    position: int


def editing(request: web.Request) -> Editing:
    """Who makes changes; there where the pages are."""
    found = request.app[SOURCES].editing
    if found is None:
        raise web.HTTPNotFound
    return found


async def changes(request: web.Request) -> web.Response:
    """The changes that were proposed last."""
    found = await asyncio.to_thread(editing(request).changes.newest)
    return page(
        request,
        "changes",
        changes=[view(request, one) for one in found],
        may_edit=Permission.EDIT_CONCEPTS in request[USER].permissions,
    )


async def change(request: web.Request) -> web.Response:
    """One change."""
    found = await asyncio.to_thread(editing(request).changes.get, request.match_info["change_id"])
    return _page(request, found)


async def act_on_change(request: web.Request) -> web.Response:
    """Records what somebody says about a change; an accepted one is begun with."""
    user = require_permission(request, Permission.EDIT_CONCEPTS)
    works, name, form = editing(request), request.match_info["change_id"], await request.post()
    position = str(form.get("position", ""))
    known = (ChangeStep.APPROVE, ChangeStep.REJECT, ChangeStep.RETRY)
    action = str(form.get("action", ""))
    if action not in known or not (position.isascii() and position.isdecimal()):
        raise web.HTTPBadRequest
    reason = str(form.get("reason", "")).replace("\r\n", "\n")
    try:
        if action == ChangeStep.RETRY and works.progress(name) is not None:
            raise web.HTTPSeeOther(str(address(request, "change", change_id=name)))
        found = await asyncio.to_thread(
            works.changes.act, name, ChangeStep(action), person=user.name, reason=reason,
            position=int(position[:9]),
        )  # fmt: skip
    except ReviewRefused as refused:
        found = await asyncio.to_thread(works.changes.get, name)
        status = _STATUSES.get(refused.code, 400)
        return _page(request, found, status=status, refusal=refused.code.value, typed=reason)
    if found.state is ChangeState.ACCEPTED:
        works.begin(found)
    raise web.HTTPSeeOther(str(address(request, "change", change_id=name)))


async def change_picture(request: web.Request) -> web.Response:
    """A small version of a picture that came with a change."""
    works = editing(request)
    found = await asyncio.to_thread(works.changes.get, request.match_info["change_id"])
    if _hidden(request, found.proposal):
        raise web.HTTPNotFound
    number = int(request.match_info["number"])
    sent = await asyncio.to_thread(works.changes.picture, found.change_id, number)
    if sent is None:
        raise web.HTTPNotFound
    data = await asyncio.to_thread(_small, sent)
    return web.Response(body=data, content_type="image/png")


def _small(data: bytes) -> bytes:
    from loragate_server.concepts.pictures import read_picture
    from loragate_server.concepts.thumbnails import SIDE

    picture = read_picture(data, "of a change")
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


def _page(
    request: web.Request, found: Change, *, status: int = 200, refusal: str = "", typed: str = ""
) -> web.Response:
    applied = found.state is ChangeState.APPLIED
    return page(
        request,
        "change",
        status=status,
        change=view(request, found),
        uncalibrated=uncalibrated(request, [found.proposal.concept_id]) if applied else [],
        refusal=refusal,
        typed=typed,
        csrf=csrf_token(request),
    )


def view(request: web.Request, change: Change) -> ChangeView:
    """A change in words."""
    wording, proposal = request[WORDING], change.proposal
    doing = editing(request).progress(change.change_id)
    hidden = _hidden(request, proposal)
    ended = change.state in (ChangeState.APPLIED, ChangeState.REJECTED)
    steps = tuple(_step(wording, one) for one in change.events)
    return ChangeView(
        change_id=change.change_id,
        kind=proposal.kind.value,
        concept_id=printable(proposal.concept_id),
        name=printable(proposal.name),
        names=tuple((wording.language_name(one), printable(name)) for one, name in proposal.names),
        category=wording.name("category", proposal.category),
        severity=wording.name("severity", proposal.severity),
        prompts=tuple(printable(one) for one in proposal.prompts),
        hands=printable(", ".join(dict.fromkeys(proposal.picture_hands))),
        needs_second=proposal.needs_second,
        state=change.state.value,
        doing="" if doing is None else _doing(wording, doing.stage, doing.share),
        interrupted=change.state is ChangeState.ACCEPTED and doing is None,
        when=steps[0].when,
        who=steps[0].who,
        steps=steps,
        pictures=() if hidden or ended else tuple(range(len(proposal.picture_sha256))),
        # Two people are needed too where it is severe now, and only is to become mild.
        veiled=proposal.needs_second or viewing(request).veils(proposal.severity),
        hidden=hidden,
        actions=_actions(request, change, busy=doing is not None),
        position=len(change.events),
    )


def _hidden(request: web.Request, proposal: Proposal) -> bool:
    """Whether no picture may be shown: what is proposed is sensitive, or the concept as it is."""
    sources, categories = request.app[SOURCES], {proposal.category}
    with suppress(NoDecisionError):
        categories.add(sources.library().get(proposal.concept_id).category)
    return not categories.isdisjoint(sources.sensitive_categories)


def _doing(wording: Wording, stage: str, share: float) -> str:
    if not stage:
        return wording("changes.waits_its_turn")
    return wording("changes.doing", stage=printable(stage), share=wording.percent(round(share, 2)))


def _actions(request: web.Request, change: Change, *, busy: bool) -> tuple[str, ...]:
    """What the reader may do now. The record decides; this only spares people dead ends."""
    user, state = request[USER], change.state
    if Permission.EDIT_CONCEPTS not in user.permissions or busy:
        return ()
    own = user.name.casefold() in {one.person.casefold() for one in change.events}
    possible = (
        (ChangeStep.APPROVE, state is ChangeState.WAITING and not own),
        (ChangeStep.RETRY, state in (ChangeState.FAILED, ChangeState.ACCEPTED)),
        (ChangeStep.REJECT, state in (ChangeState.WAITING, ChangeState.FAILED)),
    )
    return tuple(step.value for step, allowed in possible if allowed)


def _step(wording: Wording, event: ChangeEvent) -> StepView:
    why = event.reason or event.detail
    if event.step is ChangeStep.APPLIED:
        why = wording("changes.now_digest", digest=event.detail[:12])
    return StepView(
        when=wording.short_moment(event.at),
        who=printable(event.person, 200) or wording("changes.server"),
        what=wording(f"step.{event.step.value}"),
        why=printable(why, _LONGEST),
    )
