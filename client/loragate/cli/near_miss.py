"""Tells a person why a number that looks damning was let through."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from loragate.cli.table import printable
from loragate.results import AuditResult, Finding, Measured, MeasureKind, Verdict


def explain_near_misses(results: Iterable[tuple[str, AuditResult]]) -> None:
    """Says on standard error by what a concept missed a limit, one line for a file.

    Args:
        results: what they are about, as the table names it, and the answers.
    """
    for name, result in results:
        sentence = near_miss(result)
        if sentence:
            print(printable(f"loragate: {name}: {sentence}"), file=sys.stderr)


def near_miss(result: AuditResult) -> str:
    """The sentence about the concept that came nearest to a limit; empty where none came near.

    Near is a concept whose own p-value would have reached the limit that the one over the library
    did not, and one that is let through for its degree alone.
    """
    if result.verdict is not Verdict.ALLOW:
        return ""
    near = [(one, one.decided_by) for one in result.findings if one.verdict is Verdict.ALLOW]
    found = [(one, by) for one, by in near if by is not None and _is_near(one, by)]
    if not found:
        return ""
    one, decided = min(found, key=lambda pair: pair[0].p_value)
    numbers = f"{one.p_value:.2g} alone, {_library(one)} over the library"
    if decided.kind is MeasureKind.DEGREE:
        why = f"its degree is {decided.value:.0f}, and below {decided.threshold:g} nothing counts"
    else:
        why = f"the limit is {decided.threshold:g} over the library"
    return f"near miss: {one.concept_name!r} has a p-value of {numbers}; {why}."


def _is_near(finding: Finding, decided: Measured) -> bool:
    if decided.kind is MeasureKind.DEGREE:
        return True
    at_library = decided.kind is MeasureKind.LIBRARY_P_VALUE
    return at_library and finding.p_value <= decided.threshold < decided.value


def _library(finding: Finding) -> str:
    return "-" if finding.library_p_value is None else f"{finding.library_p_value:.2g}"
