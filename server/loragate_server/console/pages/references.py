"""The reference pictures of concepts that a decision is about, as far as they may be shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from loragate_server.console.sources import SOURCES
from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import GRAVITY, Decision, VerdictKind
from loragate_server.severity import SEVERITIES
from loragate_server.wording.printable import printable

MOST_PICTURES = 6
MOST_CONCEPTS = 3


@dataclass(frozen=True)
class References:
    """The pictures of one concept.

    Attributes:
        pictures: digests that they are served by; empty where none may or can be shown.
        veiled: whether each is blurred until the reader wants to see it.
        hidden: whether its category is one whose pictures are never shown.
    """

    concept_id: str
    name: str
    pictures: tuple[str, ...]
    veiled: bool
    hidden: bool


def references(request: web.Request, decision: Decision) -> tuple[References, ...]:
    """Of the gravest concepts that the policy acted on, as far as the library still has them."""
    acted = [one for one in decision.findings if one.verdict is not VerdictKind.ALLOW]
    acted.sort(key=lambda one: (GRAVITY[one.verdict], rank(one.evidence.severity)), reverse=True)
    found = (
        _of(request, one.evidence.concept_id, one.evidence.severity)
        for one in acted[:MOST_CONCEPTS]
    )
    return tuple(one for one in found if one is not None)


def rank(severity: str) -> int:
    """Severities in order; what no version knows counts as the gravest."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def gravest(severities: Iterable[str]) -> str:
    """The gravest of some; "" of none."""
    return max(severities, key=rank, default="")


def _of(request: web.Request, concept_id: str, severity: str) -> References | None:
    sources = request.app[SOURCES]
    try:
        concept = sources.library().get(concept_id)
    except NoDecisionError:  # it was taken out of the library since
        return None
    hidden = concept.category in sources.sensitive_categories
    grave = gravest((severity, concept.severity))
    return References(
        concept_id=concept.concept_id,
        name=printable(concept.name, 80),
        pictures=() if hidden else tuple(concept.picture_sha256[:MOST_PICTURES]),
        veiled=grave in sources.reviews.rules.four_eyes_severities or grave not in SEVERITIES,
        hidden=hidden,
    )
