"""A span for every check on the HTTP port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loragate_server.tracing.tracer import TRACE_HEADERS, Tracer

if TYPE_CHECKING:  # loading these for their types alone would load torch
    from loragate_server.checkpoint.outcome import CheckOutcome
    from loragate_server.intercept.request import HttpRequest
    from loragate_server.progress import Leash
    from loragate_server.web.check import Check

ROUTE = "/v1/check"


def traced(check: Check, tracer: Tracer) -> Check:
    """Answers as `check` does, in a span within the trace of the request that is checked."""

    async def answer(
        request: HttpRequest, extractor: str, identity: str, leash: Leash
    ) -> CheckOutcome:
        headers = {name: request.headers.get(name, "") for name in TRACE_HEADERS}
        attributes = {"http.route": ROUTE, "loragate.extractor": extractor}
        span = tracer.serve(f"check {ROUTE}", headers, attributes)
        with span.active():
            outcome = await check(request, extractor, identity, leash)
            span.set("loragate.check", outcome.result.value)
            span.set("http.response.status_code", outcome.denial.status if outcome.denial else 200)
        return outcome

    return answer
