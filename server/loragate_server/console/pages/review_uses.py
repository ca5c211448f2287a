"""The uses that are reviewed together, and what was done about them, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from loragate_server.console.pages.rows import Row, row
from loragate_server.record.reviews.review import FileCase, ReviewEvent, Use
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

_LONGEST_NAME = 200
_LONGEST_LIST = 200
_LONGEST_REASON = 2000
_DIGITS = 8


@dataclass(frozen=True)
class UseView:
    """A use of the adapter that somebody asked about.

    Attributes:
        key: names it in the form.
        strength: multiples of full strength, of each file.
        covers: what an approval of it covers, in one line.
        offered: whether the reader's approval can cover it.
        chosen: whether it does unless the reader changes it.
        elsewhere: id of its newest decision, where that is not the one looked at.
    """

    key: str
    strength: str
    base_model: str
    suspects: tuple[str, ...]
    more: int
    services: str
    loaders: str
    asked: int
    state: str
    covers: str
    offered: bool
    chosen: bool
    elsewhere: str


@dataclass(frozen=True)
class EventView:
    """One act of a reviewer, about one use or several.

    Attributes:
        elsewhere: id of the decision looked at, if it was another one.
    """

    review_ids: frozenset[str]
    when: str
    who: str
    what: str
    why: str
    until: str
    uses: int
    elsewhere: str


def use_view(
    wording: Wording, use: Use, looked_at: str, *, offered: bool, left_out: bool
) -> UseView:
    """A use in words.

    Args:
        wording: of the language.
        use: what is reviewed.
        looked_at: id of the decision whose page this is.
        offered: whether the reader's approval can cover it.
        left_out: whether the reader has taken it out of a form that was refused.
    """
    verdict = use.review.verdict
    line, evidence = row(wording, verdict), verdict.decision.evidence
    here = verdict.decision_id == looked_at
    services = [printable(one) or wording("review.nameless") for one in use.services]
    strength = " + ".join(
        _strength(wording, one.denoiser_strength, one.text_encoder_strength, one.config_sha256)
        for one in evidence.adapters
    )
    return UseView(
        key=use.subject_key,
        strength=strength,
        base_model=line.base_model,
        suspects=line.suspects,
        more=line.more,
        services=printable(", ".join(services), _LONGEST_LIST),
        loaders=printable(", ".join(evidence.loaders), _LONGEST_LIST),
        asked=use.review.asked,
        state=wording(f"state.{use.review.state.value}"),
        covers=_covers(wording, line, strength),
        offered=offered,
        chosen=offered and not left_out,
        elsewhere="" if here else verdict.decision_id,
    )


def acts(wording: Wording, case: FileCase) -> tuple[EventView, ...]:
    """Everything that reviewers did about the uses, oldest first; what was one act is one line."""
    together: dict[object, list[ReviewEvent]] = defaultdict(list)
    for use in case.uses:
        for event in use.review.events:
            together[_act(event)].append(event)
    found = sorted(together.values(), key=lambda several: several[0].reviewed_at)
    return tuple(_event(wording, case, several) for several in found)


def newest_act(case: FileCase, reviewer: str) -> str:
    """Id of the last event of somebody; "" where there is none."""
    events = [one for use in case.uses for one in use.review.events if one.reviewer == reviewer]
    return max(events, key=lambda one: one.reviewed_at).review_id if events else ""


def _act(event: ReviewEvent) -> object:
    return (event.reviewed_at, event.reviewer, event.action, event.reason, event.expires_at)


def _event(wording: Wording, case: FileCase, events: Sequence[ReviewEvent]) -> EventView:
    event, here = events[0], case.looked_at.verdict.decision_id
    looked_at = {one.decision_id for one in events}
    return EventView(
        review_ids=frozenset(one.review_id for one in events),
        when=wording.short_moment(event.reviewed_at),
        who=printable(event.reviewer, _LONGEST_NAME),
        what=wording(f"event.{event.action.value}"),
        why=printable(event.reason, _LONGEST_REASON),
        until=wording.short_moment(event.expires_at) if event.expires_at else "",
        uses=len(events),
        elsewhere="" if here in looked_at else event.decision_id,
    )


def _covers(wording: Wording, line: Row, strength: str) -> str:
    first = wording("act.covers", strength=strength, base=line.base_model)
    more = [wording("row.more", count=line.more)] if line.more else []
    return reduce(
        lambda said, one: wording("act.covers_and", first=said, second=one),
        [first, *line.suspects, *more],
    )


def _strength(wording: Wording, denoiser: float, text: float, config_sha256: str) -> str:
    if denoiser == text:
        words = f"{denoiser:g}"
    else:
        words = wording("use.strengths", denoiser=f"{denoiser:g}", text=f"{text:g}")
    if not config_sha256:
        return words
    digits = printable(config_sha256[:_DIGITS])
    return wording("review.configured", strength=words, digits=digits)
