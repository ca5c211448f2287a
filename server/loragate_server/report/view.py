"""`Report`: a recorded verdict put into words, ready to be laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from loragate_server.audit.evidence import Evidence, LayerProfile
from loragate_server.audit.packed import whole
from loragate_server.policy.decision import Decision, Finding, Mode, Reason, VerdictKind
from loragate_server.policy.holm import holm_adjusted
from loragate_server.policy.known import KNOWN_CODE
from loragate_server.policy.lineage import LINEAGE_CODES
from loragate_server.policy.review import APPROVED_CODE, REJECTED_CODE
from loragate_server.policy.sentences import use_of
from loragate_server.record.verdict import Verdict
from loragate_server.report.change import what_would_change
from loragate_server.report.facts import Fact, facts
from loragate_server.report.heat import Heat, draw
from loragate_server.report.numbers import Sureness, sureness
from loragate_server.report.uses import use_in_words, where_found
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import NO_NUMBER, Wording

MOST_CARDS = 3
"""Concepts that are shown at length; all of them are in the table."""

_NAME_IN_SENTENCE = 60
_NAME_IN_TABLE = 300
_MESSAGE = 2000
_DEGREES = ((60.0, "deep"), (30.0, "clear"), (10.0, "slight"), (-math.inf, "hardly"))


@dataclass(frozen=True)
class ConceptView:
    """One concept.

    Attributes:
        degree: 0 to 100, or None where it was not measured.
        hands: by how many people or sources its pictures are; "" in old records.
        change: what decided, and what would change it; "" in old records.
    """

    name: str
    concept_id: str
    category: str
    severity: str
    verdict: str
    judged: str
    score: str
    sure: Sureness
    degree: float | None
    degree_text: str
    degree_words: str
    stage: str
    use: str
    hands: str
    change: str


@dataclass(frozen=True)
class LayerView:
    """Numbers of one layer's profile."""

    name: str
    change: str
    cosine: str
    contrast: str


@dataclass(frozen=True)
class ReasonView:
    """A reason in plain words, and as it was recorded."""

    plain: str
    recorded: str
    code: str


@dataclass(frozen=True)
class Report:
    """What the page shows, top to bottom.

    Attributes:
        verdict: what the policy decided, also where it only observed.
        binding: what that means for the image service; empty in pilot mode and in a dry run.
        notices: title and text of what has to be known before anything else.
        cards: concepts at length, gravest first; `more` of the same weight are only in the table.
        notable, rest: the table of all concepts; `rest` is folded away.
        left_out: what is not in the table of a large library; empty where nothing is.
    """

    verdict: str
    verdict_words: str
    headline: str
    binding: str
    notices: tuple[tuple[str, str], ...]
    decided_at: str
    found_note: str
    cards: tuple[ConceptView, ...]
    more: int
    remedy: str
    steps: tuple[str, ...]
    reasons: tuple[ReasonView, ...]
    heat: Heat | None
    layers: tuple[LayerView, ...]
    notable: tuple[ConceptView, ...]
    rest: tuple[ConceptView, ...]
    left_out: str
    limits: tuple[str, ...]
    facts: tuple[Fact, ...]


def report_on(verdict: Verdict, wording: Wording) -> Report:
    """Puts a verdict into words.

    Args:
        verdict: as it was recorded.
        wording: of the language.
    """
    decision = replace(verdict.decision, evidence=whole(verdict.decision.evidence))
    evidence = decision.evidence
    notable, rest = _sorted(decision)
    views = _concepts(wording, decision)
    shown = notable[:MOST_CARDS] or rest[:1]
    observed = decision.mode is Mode.PILOT
    kind = decision.would_be_verdict.value
    return Report(
        verdict=kind,
        verdict_words=wording(f"{'would_be' if observed else 'verdict'}.{kind}"),
        headline=_headline(wording, decision),
        binding=wording(f"binding.{kind}") if verdict.binding and not observed else "",
        notices=_notices(wording, verdict),
        decided_at=wording.moment(verdict.decided_at),
        found_note=_found_note(wording, decision, bool(notable)),
        cards=tuple(views[finding.evidence.concept_id] for finding in shown),
        more=max(0, len(notable) - MOST_CARDS),
        remedy=wording(f"remedy.{decision.remedy.value}"),
        steps=_steps(wording, decision),
        reasons=tuple(_reason(wording, reason) for reason in decision.reasons),
        heat=_heat(wording, evidence),
        layers=tuple(_layer(wording, layer) for layer in evidence.layers),
        notable=tuple(views[finding.evidence.concept_id] for finding in notable),
        rest=tuple(views[finding.evidence.concept_id] for finding in rest),
        left_out=_left_out(wording, decision),
        limits=_limits(wording, evidence),
        facts=facts(wording, verdict),
    )


def _sorted(decision: Decision) -> tuple[list[Finding], list[Finding]]:
    """Findings that the policy acts on, gravest first, and the others; each by falling score."""
    acted = [f for f in decision.findings if f.verdict is not VerdictKind.ALLOW]
    acted.sort(key=lambda finding: list(VerdictKind).index(finding.verdict), reverse=True)
    return acted, [f for f in decision.findings if f.verdict is VerdictKind.ALLOW]


def _concepts(wording: Wording, decision: Decision) -> dict[str, ConceptView]:
    concepts = decision.evidence.concepts
    adjusted = holm_adjusted([concept.p_value for concept in concepts])
    by_id = {c.concept_id: p for c, p in zip(concepts, adjusted, strict=True)}
    return {
        finding.evidence.concept_id: _concept(
            wording,
            finding,
            by_id.get(finding.evidence.concept_id, math.nan),
            decision.evidence,
        )
        for finding in decision.findings
    }


def _concept(
    wording: Wording, finding: Finding, adjusted: float, evidence: Evidence
) -> ConceptView:
    concept = finding.evidence
    degree = None if math.isnan(concept.degree) else min(100.0, max(0.0, concept.degree))
    words = "" if degree is None else next(w for least, w in _DEGREES if degree >= least)
    return ConceptView(
        name=printable(concept.concept_name or concept.concept_id, _NAME_IN_TABLE),
        concept_id=printable(concept.concept_id, _NAME_IN_TABLE),
        category=wording.name("category", concept.category),
        severity=wording.name("severity", concept.severity),
        verdict=finding.verdict.value,
        judged=wording(f"judged.{finding.verdict.value}"),
        score=wording.decimal(concept.score),
        sure=sureness(
            wording, concept, adjusted, len(evidence.concepts), evidence.calibration_size
        ),
        degree=degree,
        degree_text=NO_NUMBER if degree is None else wording.decimal(degree, 0),
        degree_words=wording(f"degree.{words}") if words else wording("degree.none"),
        stage=wording(f"stage.{concept.stage}"),
        use=use_in_words(wording, evidence, use_of(evidence, concept)),
        hands=wording("found.hands_count", count=concept.hands) if concept.hands else "",
        change=what_would_change(wording, finding),
    )


def _layer(wording: Wording, layer: LayerProfile) -> LayerView:
    return LayerView(
        name=printable(layer.layer, _NAME_IN_TABLE),
        change=wording.percent(layer.relative_change),
        cosine=wording.decimal(layer.cosine_similarity, 4),
        contrast=f"{wording.decimal(layer.concept_contrast, 2)} ×",
    )


def _headline(wording: Wording, decision: Decision) -> str:
    """One sentence; which one follows from the codes of the reasons, not from their sentences."""
    codes = {reason.code for reason in decision.reasons}
    count = len(decision.evidence.adapters)
    where = where_found(wording, decision.evidence, None)
    kind = decision.would_be_verdict
    if "deny_listed" in codes:
        key = "headline.deny_listed" if count == 1 else "headline.deny_listed_many"
        return wording(key, where=where)
    if REJECTED_CODE in codes:
        key = f"headline.{REJECTED_CODE}" + ("" if count == 1 else "_many")
        return wording(key, where=where)
    if APPROVED_CODE in codes:
        return wording(f"headline.{APPROVED_CODE}", where=where)
    if kind is VerdictKind.ALLOW:
        key = "headline.allow_listed" if "allow_listed" in codes else "headline.clean"
        more = 0 if decision.left_out is None else decision.left_out.count
        return wording(key, where=where, count=len(decision.findings) + more)
    if KNOWN_CODE in codes:
        return wording(f"headline.{KNOWN_CODE}", where=where)
    if not codes & {"concept_learned", "concept_suspected"}:
        for code in LINEAGE_CODES:
            if code in codes:
                return wording(f"headline.{code}", where=where)
    named = [f for f in decision.findings if f.verdict is kind and not math.isnan(f.evidence.score)]
    if kind is VerdictKind.INCONCLUSIVE or not named:
        return wording("headline.not_examined", where=where)
    top = named[0].evidence
    name = printable(top.concept_name or top.concept_id, _NAME_IN_SENTENCE)
    where = where_found(wording, decision.evidence, use_of(decision.evidence, top))
    if "concept_learned" in codes:
        key = "headline.learned_more" if len(named) > 1 else "headline.learned"
    else:
        key = "headline.suspected" if "concept_suspected" in codes else "headline.not_examined"
    return wording(key, concept=name, where=where, more=len(named) - 1)


def _notices(wording: Wording, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    keys = ["notice.pilot"] if verdict.decision.mode is Mode.PILOT else []
    keys += ["notice.dry_run"] if verdict.dry_run else []
    keys += ["notice.restricted"] if verdict.decision.evidence.restricted_to else []
    return tuple((wording(key), wording(f"{key}_more")) for key in keys)


def _found_note(wording: Wording, decision: Decision, acted: bool) -> str:
    if not decision.findings:
        return wording("found.unmeasured")
    codes = {reason.code for reason in decision.reasons}
    if codes & {APPROVED_CODE, REJECTED_CODE}:
        return wording("found.reviewed")
    if "allow_listed" in codes:
        return wording("found.set_aside")
    return "" if acted else wording("found.nothing")


def _left_out(wording: Wording, decision: Decision) -> str:
    left = decision.left_out
    if left is None:
        return ""
    highest = wording.decimal(left.highest_score)
    return wording("all.left_out", count=left.count, score=highest)


def _steps(wording: Wording, decision: Decision) -> tuple[str, ...]:
    codes = {reason.code for reason in decision.reasons}
    kind = decision.would_be_verdict
    first: tuple[str, ...] = ()
    if decision.mode is Mode.PILOT and kind is not VerdictKind.ALLOW:
        first = wording.every("steps.pilot")
    if "deny_listed" in codes:
        return first + wording.every("steps.deny_listed")
    for code in (REJECTED_CODE, APPROVED_CODE, KNOWN_CODE):
        if code in codes:
            return first + wording.every(f"steps.{code}")
    acted = codes & {"concept_learned", "concept_suspected"}
    if kind is not VerdictKind.ALLOW and not acted and codes & set(LINEAGE_CODES):
        return first + wording.every("steps.lineage")
    if kind is VerdictKind.INCONCLUSIVE or (kind is not VerdictKind.ALLOW and not acted):
        return first + wording.every("steps.inconclusive")
    return first + wording.every(f"steps.{decision.remedy.value}")


def _limits(wording: Wording, evidence: Evidence) -> tuple[str, ...]:
    concepts = len(evidence.concepts)
    first = wording.every("limits.concepts" if concepts else "limits.nothing", concepts=concepts)
    lonely = sum(concept.hands == 1 for concept in evidence.concepts)
    if lonely:
        first += wording.every("limits.one_hand", concepts=lonely)
    elif concepts and all(concept.hands for concept in evidence.concepts):
        least = min(concept.hands for concept in evidence.concepts)
        first += wording.every("limits.hands", hands=least)
    return first + wording.every("limits.items")


def _reason(wording: Wording, reason: Reason) -> ReasonView:
    key = f"reason.{reason.code}"
    plain = wording(key) if wording.known(key) else wording("reason.unknown")
    return ReasonView(plain, printable(reason.message, _MESSAGE), printable(reason.code, 80))


def _heat(wording: Wording, evidence: Evidence) -> Heat | None:
    heat_map = evidence.heat_map
    if heat_map is None:
        return None
    names = {concept.concept_id: concept.concept_name for concept in evidence.concepts}
    name = names.get(heat_map.concept_id) or heat_map.concept_id
    return draw(wording, heat_map, printable(name, _NAME_IN_SENTENCE))
