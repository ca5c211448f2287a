"""One audit: the verdict in full, its review, and the report as a file of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from http import HTTPStatus

from aiohttp import web

from loragate_server.access import csrf_token, require_role
from loragate_server.access.identity import USER, Role
from loragate_server.concepts.thumbnails import thumbnail
from loragate_server.console.assets import OWN_HEADERS
from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.references import viewing
from loragate_server.console.pages.review_form import Form, Problem, read_form
from loragate_server.console.pages.review_panel import panel
from loragate_server.console.pages.review_uses import newest_act
from loragate_server.console.pages.ruled import ruled
from loragate_server.console.sources import SOURCES
from loragate_server.record.reviews.cases import Act
from loragate_server.record.reviews.refusals import RefusalCode, ReviewRefused
from loragate_server.record.reviews.review import FileCase
from loragate_server.report.references import embedded, references
from loragate_server.report.render import SIGNS, render
from loragate_server.report.view import report_on

_STATUSES = {
    RefusalCode.STALE: HTTPStatus.CONFLICT,
    RefusalCode.NOT_OPEN: HTTPStatus.CONFLICT,
    RefusalCode.NOT_REVIEWABLE: HTTPStatus.CONFLICT,
    RefusalCode.SAME_REVIEWER: HTTPStatus.FORBIDDEN,
    RefusalCode.ADMIN_ONLY: HTTPStatus.FORBIDDEN,
}
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


async def audit(request: web.Request) -> web.Response:
    """The page of one decision."""
    reviews = request.app[SOURCES].reviews
    case = await asyncio.to_thread(reviews.file_case, request.match_info["decision_id"])
    return _page(request, case, done=request.query.get("done", ""))


async def act(request: web.Request) -> web.Response:
    """Records what a reviewer decides, then shows the audit again.

    A refusal is the audit's page as well, with the reason of the refusal, the state as it is now,
    and the form as it was filled in.
    """
    user = require_role(request, Role.REVIEWER)
    reviews = request.app[SOURCES].reviews
    decision_id = request.match_info["decision_id"]
    form = read_form(await request.post(), reviews.rules.longest_approval)
    if isinstance(form, Problem):
        return await _refused(request, form.code, form.form, HTTPStatus.BAD_REQUEST)
    try:
        did = Act(form.action, user.name, form.reason, form.expires_at, user.may(Role.ADMIN))
        case = await asyncio.to_thread(
            reviews.act_on_file, decision_id, did, seen=form.seen, chosen=form.chosen
        )
    except ReviewRefused as refused:
        status = _STATUSES.get(refused.code, HTTPStatus.BAD_REQUEST)
        return await _refused(request, refused.code.value, form.typed, status)
    done = newest_act(case, user.name)
    target = address(request, "audit", decision_id=decision_id).with_query(done=done)
    raise web.HTTPSeeOther(str(target))


async def _refused(request: web.Request, code: str, typed: Form, status: int) -> web.Response:
    reviews = request.app[SOURCES].reviews
    case = await asyncio.to_thread(reviews.file_case, request.match_info["decision_id"])
    return _page(request, case, status=status, refusal=code, typed=typed)


def _page(
    request: web.Request,
    case: FileCase,
    *,
    status: int = 200,
    done: str = "",
    refusal: str = "",
    typed: Form | None = None,
) -> web.Response:
    """The page of a decision.

    Args:
        request: answered with the page.
        case: the decision, and what is reviewed together with it.
        status: of the answer.
        done: id of the event that the reader has just made; anything else is not looked at.
        refusal: why nothing was recorded, as in the wording; "" if nothing was refused.
        typed: what the form held that was refused.
    """
    wording = request[WORDING]
    longest = request.app[SOURCES].reviews.rules.longest_approval
    verdict = case.looked_at.verdict
    report = ruled(wording, case, report_on(verdict, wording))
    adapters = verdict.decision.evidence.adapters
    shown = panel(wording, case, request[USER], longest, typed or Form())
    return page(
        request,
        "audit",
        status=status,
        report=report,
        sign=SIGNS[report.verdict],
        decision_id=verdict.decision_id,
        adapters=[adapter.sha256 for adapter in adapters],
        panel=shown,
        references=references(verdict.decision, viewing(request)),
        event=next((one for one in shown.events if done in one.review_ids), None),
        refusal=refusal,
        csrf=csrf_token(request),
    )


async def report(request: web.Request) -> web.Response:
    """The report that can be kept and forwarded, as one file that may show only what is in it."""
    recorder = request.app[SOURCES].recorder
    decision_id = request.match_info["decision_id"]
    verdict = await asyncio.to_thread(recorder.get, decision_id)
    language = request[WORDING].language
    shown = await asyncio.to_thread(embedded, verdict.decision, viewing(request), thumbnail)
    text = render(verdict, language, shown)
    [style] = _STYLE.findall(text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"sandbox; default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    name = f"loragate-{verdict.decision_id}-{language}.html"
    request[OWN_HEADERS] = {"Content-Security-Policy": policy}
    disposition = f'inline; filename="{name}"'
    return web.Response(
        text=text, content_type="text/html", headers={"Content-Disposition": disposition}
    )
