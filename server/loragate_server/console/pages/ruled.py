"""The head of an audit's page where people have ruled since: it says what holds now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from loragate_server.record.reviews.review import FileCase, ReviewState, standing
from loragate_server.report.uses import where_found
from loragate_server.report.view import Report
from loragate_server.wording.wording import Wording

_TONES = {ReviewState.APPROVED: "ALLOW", ReviewState.REJECTED: "BLOCK"}


def ruled(wording: Wording, case: FileCase, report: Report) -> Report:
    """The report with the headline of the ruling; as it was where nobody has settled the review.

    The record of the decision is not touched: the facts and the report as a file keep what was
    answered at the time.

    Args:
        wording: of the language.
        case: the decision, and what is reviewed together with it.
        report: on the decision as it was recorded.
    """
    one = case.looked_at
    state = ReviewState.REJECTED if case.rejected else one.state
    tone = _TONES.get(state)
    if tone is None or not one.reviewable:
        return report
    evidence = one.verdict.decision.evidence
    several = len(evidence.adapters) > 1 and state is ReviewState.REJECTED
    key = f"headline.review_{state.value}" + ("_many" if several else "")
    binding = wording(f"ruled.{state.value}")
    ends = standing(one.events, datetime.now(UTC)).expires_at
    if state is ReviewState.APPROVED and ends is not None:
        binding = wording("ruled.approved_until", time=wording.moment(ends))
    return replace(
        report,
        verdict=tone,
        verdict_words=wording(f"ruled.words_{state.value}"),
        headline=wording(key, where=where_found(wording, evidence, None)),
        binding=binding,
    )
