"""Prints aligned tables, with colours where a person looks at them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from loragate.results import AuditResult, Finding, MeasureKind, Mode, Verdict

AUDIT_COLUMNS = ("file", "verdict", "concept", "p-value", "score", "degree", "remedy", "time")
FINDING_COLUMNS = ("concept", "verdict", "p-value", "alone", "score", "degree", "limit")
RIGHT = frozenset({"p-value", "alone", "score", "degree", "time", "pictures"})

_COLOURS = {"ALLOW": "32", "BLOCK": "31", "ERROR": "31", "REVIEW": "33", "INCONCLUSIVE": "33"}


def audit_row(name: str, result: AuditResult, took: str) -> tuple[str, ...]:
    """One decision, in the columns of `AUDIT_COLUMNS`; the numbers are of its top finding."""
    remedy = result.remedy.lower().replace("_", " ")
    top = result.top_finding
    moot = result.verdict is Verdict.ALLOW and not result.allowed
    if top is None or moot:
        why = result.reasons[0].code if result.reasons else "-"
        return (name, verdict(result), "not binding" if moot else why, "-", "-", "-", remedy, took)
    # An allowed adapter has learned none of the concepts, not even the one with the top score.
    concept = top.concept_name if top.verdict is not Verdict.ALLOW else "-"
    return (name, verdict(result), concept, *measures(top), remedy, took)


def verdict(result: AuditResult) -> str:
    """The verdict, which in a pilot is never that of the policy alone."""
    if result.mode is not Mode.PILOT:
        return result.verdict
    if result.would_be_verdict is result.verdict:
        return f"{result.verdict} (pilot)"
    return f"{result.verdict} (pilot; would be {result.would_be_verdict})"


def measures(finding: Finding) -> tuple[str, str, str]:
    """P-value, score and degree of a finding; dashes where the caller may not see them.

    The p-value is the one that the policy compares: over the library, unless the concept's own
    decided or the service is older and says that one alone.
    """
    if finding.measures_withheld:
        return ("-", "-", "-")
    by, over_library = finding.decided_by, finding.library_p_value
    own = over_library is None or (by is not None and by.kind is MeasureKind.OWN_P_VALUE)
    return (
        f"{finding.p_value if own else over_library:.2g}",
        f"{finding.score:.1f}",
        f"{finding.degree:.0f}",
    )


def error_row(name: str, reason: str, took: str) -> tuple[str, ...]:
    """One adapter without a decision, in the columns of `AUDIT_COLUMNS`."""
    return (name, "ERROR", reason, "-", "-", "-", "-", took)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Prints rows under their columns; colours the verdict on a terminal."""
    cells = [[printable(cell) for cell in row] for row in rows]
    table = [[column.upper() for column in columns], *cells]
    widths = [max(_width(row[i]) for row in table) for i in range(len(columns))]
    coloured = stream.isatty() and "NO_COLOR" not in os.environ
    for row in table:
        padded = [
            _pad(cell, width, right=column in RIGHT)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        if coloured:
            padded = [
                f"\x1b[{colour}m{text}\x1b[0m" if (colour := _colour(cell)) else text
                for cell, text in zip(row, padded, strict=True)
            ]
        print("  ".join(padded).rstrip(), file=stream)


def finding_row(finding: Finding) -> tuple[str, ...]:
    """One concept of a decision, in the columns of `FINDING_COLUMNS`."""
    by = finding.decided_by
    alone = "-" if finding.measures_withheld else f"{finding.p_value:.2g}"
    limit = "-" if by is None else f"{by.kind.lower().replace('_', ' ')} {by.threshold:g}"
    p_value, score, degree = measures(finding)
    return (finding.concept_name, finding.verdict, p_value, alone, score, degree, limit)


def _colour(cell: str) -> str:
    """Of a verdict; of a pilot's the one of what enforcing would say. Empty for other cells."""
    pilot = re.fullmatch(r"[A-Z]+ \(pilot(?:; would be ([A-Z]+))?\)", cell)
    return _COLOURS.get((pilot[1] or "ALLOW") if pilot else cell, "")


def printable(text: str) -> str:
    """The text without control characters, by which a file name could rule the terminal."""
    return "".join(
        character if not unicodedata.category(character).startswith("C") else "?"
        for character in text
    )


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
