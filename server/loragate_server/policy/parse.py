"""From the bytes of a policy file to a `Policy`, or to an error that names line and remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import ValidationError

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.policy.document import (
    AllowedAdapter,
    ListedAdapter,
    PolicyDocument,
    RuleDocument,
    ThresholdsDocument,
)
from loragate_server.policy.explain import Problem, explain
from loragate_server.policy.lineage import LineageRules
from loragate_server.policy.policy import Policy, Rule, Thresholds
from loragate_server.policy.source import Location, Position, Source, SourceError

MAX_PROBLEMS_SHOWN = 10
_INHERITED = (
    "block_score",
    "block_p_value",
    "review_score",
    "review_p_value",
    "review_own_p_value",
    "min_degree",
    "block_degree_uncalibrated",
    "on_block",
)


def parse_policy(data: bytes, file: str = "policy.yaml") -> Policy:
    """Validates the bytes of a policy file.

    Args:
        data: the whole file.
        file: its name, used in messages only.

    Raises:
        NoDecisionError: POLICY_INVALID; the message has one line
            "FILE:LINE:COLUMN: SETTING: PROBLEM; REMEDY" per problem.
    """
    try:
        source = Source(data)
    except SourceError as error:
        problem = Problem(error.location, error.problem, error.remedy)
        raise _invalid(file, [(error.position, problem)]) from error
    if source.value is None:
        empty = Problem((), "is empty", "Start from the default policy.")
        raise _invalid(file, [(Position(), empty)])
    try:
        document = PolicyDocument.model_validate(source.value)
    except ValidationError as error:
        raise _invalid(file, _placed(source, explain(error))) from error
    problems = _contradictions(document)
    if problems:
        raise _invalid(file, _placed(source, problems))
    return _resolve(document, hashlib.sha256(data).hexdigest(), file)


def _placed(source: Source, problems: list[Problem]) -> list[tuple[Position, Problem]]:
    placed = [(source.position(p.location, key=p.at_key), p) for p in problems]
    return sorted(placed, key=lambda entry: (entry[0].line, entry[0].column))


def _invalid(file: str, placed: list[tuple[Position, Problem]]) -> NoDecisionError:
    lines = [
        f"{file}:{position.line}:{position.column}: {problem.text()}"
        for position, problem in placed[:MAX_PROBLEMS_SHOWN]
    ]
    if len(placed) > MAX_PROBLEMS_SHOWN:
        lines.append(f"... and {len(placed) - MAX_PROBLEMS_SHOWN} more problems")
    first = placed[0][0]
    return NoDecisionError(
        ErrorReason.POLICY_INVALID,
        "\n".join(lines),
        remedy="Correct the policy file; a server that runs keeps the last good policy.",
        metadata={"file": file, "line": str(first.line), "column": str(first.column)},
    )


def _contradictions(document: PolicyDocument) -> list[Problem]:
    """What the schema cannot say: settings that do not go together."""
    problems = _disorder(document.defaults, ("defaults",))
    if document.defaults.block_score is None and document.defaults.block_p_value is None:
        problems.append(
            Problem(
                ("defaults",), "never blocks", "Give block_score or block_p_value.", at_key=True
            )
        )
    for index, rule in enumerate(document.rules):
        problems += _rule_problems(document, rule, index)
    for name in ("allow_sha256", "deny_sha256"):
        problems += _repeated(getattr(document, name), name)
    if document.limits.strength_minimum >= document.limits.strength_maximum:
        problems.append(
            Problem(
                ("limits", "strength_minimum"),
                f"must be below strength_maximum ({document.limits.strength_maximum:g})",
                "Lower it.",
            )
        )
    return problems


def _rule_problems(document: PolicyDocument, rule: RuleDocument, index: int) -> list[Problem]:
    place: Location = ("rules", index)
    problems = _disorder(rule, place)
    if rule.concepts is None and rule.categories is None and rule.severities is None:
        problems.append(
            Problem(
                place,
                "matches every concept",
                "Give concepts, categories or severities, or change defaults instead.",
            )
        )
    resolved = _thresholds(rule, document.defaults, None)
    if resolved.block_score is None and resolved.block_p_value is None:
        problems.append(Problem(place, "never blocks", "Give block_score or block_p_value."))
    if any(other.name == rule.name for other in document.rules[:index]):
        problems.append(
            Problem((*place, "name"), f"{rule.name!r} is taken", "Choose another name.")
        )
    return problems


def _disorder(given: ThresholdsDocument, place: Location) -> list[Problem]:
    """Review levels that are stricter to reach than the block levels beside them."""
    problems = []
    if None not in (given.review_score, given.block_score) and (
        (given.review_score or 0) > (given.block_score or 0)
    ):
        problems.append(
            Problem(
                (*place, "review_score"),
                f"must be at most block_score ({given.block_score:g})",
                "Lower it, or raise block_score.",
            )
        )
    if None not in (given.review_p_value, given.block_p_value) and (
        (given.review_p_value or 0) < (given.block_p_value or 0)
    ):
        problems.append(
            Problem(
                (*place, "review_p_value"),
                f"must be at least block_p_value ({given.block_p_value:g})",
                "Raise it, or lower block_p_value.",
            )
        )
    return problems


def _repeated(entries: Sequence[ListedAdapter], name: str) -> list[Problem]:
    seen = set[tuple[str, str | None]]()
    problems = []
    for index, entry in enumerate(entries):
        own = entry.sha256, entry.config_sha256 if isinstance(entry, AllowedAdapter) else None
        if own in seen:
            problems.append(
                Problem((name, index, "sha256"), "is listed twice", "Keep one of them.")
            )
        seen.add(own)
    return problems


def _resolve(document: PolicyDocument, digest: str, file: str) -> Policy:
    defaults = _thresholds(document.defaults, document.defaults, None)
    return Policy(
        mode=Mode(document.mode.upper()),
        defaults=defaults,
        rules=tuple(
            Rule(
                name=rule.name,
                concepts=frozenset(rule.concepts or ()),
                categories=frozenset(rule.categories or ()),
                severities=frozenset(rule.severities or ()),
                thresholds=_thresholds(rule, document.defaults, rule.remedy),
            )
            for rule in document.rules
        ),
        remedies={
            severity: Remedy(name.upper())
            for severity, name in document.remedies.model_dump().items()
        },
        allow=tuple(document.allow_sha256),
        deny=tuple(document.deny_sha256),
        limits=document.limits,
        when_inconclusive=VerdictKind(document.when_inconclusive.upper()),
        verdict_ttl_s=document.verdict_ttl_s,
        screen_miss_rate=document.screen_miss_rate,
        restrict=frozenset(document.restrict.callers),
        lineage=LineageRules(
            copies=VerdictKind(document.lineage.copies.upper()),
            parts=VerdictKind(document.lineage.parts.upper()),
        ),
        digest=digest,
        file=file,
    )


def _thresholds(
    given: ThresholdsDocument, inherited: ThresholdsDocument, remedy: str | None
) -> Thresholds:
    merged = {
        name: getattr(given if name in given.model_fields_set else inherited, name)
        for name in _INHERITED
    }
    merged["on_block"] = VerdictKind(merged["on_block"].upper())
    return Thresholds(**merged, remedy=Remedy(remedy.upper()) if remedy else None)
