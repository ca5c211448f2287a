"""The page on which somebody proposes a change of the concept library."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from loragate_server.access import csrf_token, require_permission
from loragate_server.access.identity import Permission
from loragate_server.access.uploads import UPLOAD
from loragate_server.console.frame import address, page
from loragate_server.console.pages.change_form import (
    HANDS,
    ConceptForm,
    fault,
    form_of,
    read_concept_form,
    wanted,
    with_other_names,
)
from loragate_server.console.pages.changes import editing
from loragate_server.console.sources import SOURCES
from loragate_server.console.wording import CONSOLE
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.changes.change import ChangeKind, ChangeState
from loragate_server.record.reviews.refusals import ReviewRefused
from loragate_server.severity import SEVERITIES

if TYPE_CHECKING:
    from loragate_server.concepts.concept import Concept

_TYPED = (ErrorReason.REQUEST_INVALID, ErrorReason.CONCEPT_PICTURES_INVALID)
_LATE = (ErrorReason.CONCEPT_EXISTS, ErrorReason.CONCEPT_UNKNOWN)


async def new_change(request: web.Request) -> web.Response:
    """The form: empty, or with a concept as it is now."""
    require_permission(request, Permission.EDIT_CONCEPTS)
    editing(request)
    wished = request.query.get("concept", "")
    return _page(request, form_of(_forbidden(request, wished)) if wished else ConceptForm())


async def propose(request: web.Request) -> web.Response:
    """Records what the form asks for, and begins with it unless a second person is needed."""
    user = require_permission(request, Permission.EDIT_CONCEPTS)
    works, upload = editing(request), request.get(UPLOAD)
    if upload is None:
        raise web.HTTPUnsupportedMediaType(text="This form has to be sent as multipart/form-data.")
    form = read_concept_form(upload.texts, CONSOLE.languages)
    if form.kind not in list(ChangeKind):
        raise web.HTTPBadRequest(text="The form does not say what is to be done.")
    severe = request.app[SOURCES].reviews.rules.four_eyes_severities
    try:
        old = _looked_at(request, form)
        if old is not None:
            form = with_other_names(form, old, CONSOLE.languages)
        asked = await asyncio.to_thread(wanted, form, upload.files, old, severe)
        change = await asyncio.to_thread(
            works.changes.propose, asked.proposal, asked.pictures, user.name, form.reason
        )
    except ReviewRefused as refused:
        return _page(request, form, status=400, refusal=refused.code.value)
    except NoDecisionError as error:
        if error.reason not in (*_TYPED, *_LATE):
            raise
        status = 409 if error.reason in _LATE else 400
        return _page(request, form, status=status, problem=fault(error))
    if change.state is ChangeState.ACCEPTED:
        works.begin(change)
    raise web.HTTPSeeOther(str(address(request, "change", change_id=change.change_id)))


def _looked_at(request: web.Request, form: ConceptForm) -> Concept | None:
    """The concept that the form is about, which has to be as the form showed it."""
    if form.kind == ChangeKind.ADD:
        known = [one.concept_id for one in request.app[SOURCES].library().concepts]
        if form.concept_id in known:
            raise NoDecisionError(
                ErrorReason.CONCEPT_EXISTS,
                f"A concept {form.concept_id!r} exists already.",
                remedy="Choose another id, or change that concept.",
            )
        return None
    old = _forbidden(request, form.concept_id)
    if old.digest != form.before:
        raise NoDecisionError(
            ErrorReason.CONCEPT_UNKNOWN,
            f"The concept {form.concept_id!r} has changed since this page was opened.",
            remedy="Open the page again and look at it.",
        )
    if form.kind == ChangeKind.RETIRE and len(request.app[SOURCES].library().forbidden) < 2:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            "Without its last forbidden concept the library could decide nothing.",
            remedy="Add another concept first.",
        )
    return old


def _forbidden(request: web.Request, concept_id: str) -> Concept:
    found = request.app[SOURCES].library().get(concept_id)
    if found.role != "forbidden":
        raise NoDecisionError(
            ErrorReason.CONCEPT_UNKNOWN,
            f"{found.concept_id!r} belongs to the neutral bank.",
            remedy="The bank cannot be changed here: calibrations rest on it.",
        )
    return found


def _page(
    request: web.Request,
    form: ConceptForm,
    *,
    status: int = 200,
    refusal: str = "",
    problem: str = "",
) -> web.Response:
    library = request.app[SOURCES].library()
    return page(
        request,
        "change_form",
        status=status,
        form=form,
        refusal=refusal,
        problem=problem,
        severities=SEVERITIES,
        severe=request.app[SOURCES].reviews.rules.four_eyes_severities,
        categories=sorted({one.category for one in library.forbidden}),
        hands=range(HANDS),
        csrf=csrf_token(request, address(request, "changes").path),
    )
