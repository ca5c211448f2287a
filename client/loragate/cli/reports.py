"""The forms in which a scan can be reported."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from loragate.cli import junit, sarif
from loragate.cli.engine_config import INSTALL
from loragate.cli.exit_code import ExitCode
from loragate.cli.gating import outcome_as_json, print_rows
from loragate.cli.outcome import Outcome
from loragate.cli.output import json_line, took_s
from loragate.cli.table import measures, verdict
from loragate.results import Verdict

CSV_COLUMNS = (
    "file",
    "verdict",
    "allowed",
    "reason",
    "concept",
    "p_value",
    "library_p_value",
    "score",
    "degree",
    "remedy",
    "sha256",
    "decision_id",
    "seconds",
    "message",
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is computed by spreadsheets, and file names come from strangers."""


def require(form: str) -> None:
    """Refuses a form that cannot be written, before everything is audited for it.

    Raises:
        ValueError: HTML needs a library that is not installed.
    """
    if form == "html" and importlib.util.find_spec("jinja2") is None:
        raise ValueError(f"--format html needs jinja2: {INSTALL}")


def report(form: str, outcomes: Sequence[Outcome]) -> str:
    """The whole report as a text in UTF-8, which ends with a line break.

    Of a file name that is no UTF-8, JSON has the very bytes as escapes; other forms cannot.
    """
    return _made(form, outcomes).encode("utf-8", "replace").decode()


def _made(form: str, outcomes: Sequence[Outcome]) -> str:
    if form == "json":
        return "".join(json_line(outcome_as_json(outcome)) + "\n" for outcome in outcomes)
    if form == "sarif":
        return sarif.text(outcomes)
    if form == "junit":
        return junit.text(outcomes, "loragate scan")
    if form == "csv":
        return _csv(outcomes)
    if form == "html":
        return _html(outcomes)
    text = io.StringIO()
    print_rows(outcomes, text)
    return text.getvalue()


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many of what: "7 files: 3 ALLOW, 4 BLOCK"."""
    order = [*Verdict, "ERROR"]
    counts = Counter(str(one.result.verdict) if one.result else "ERROR" for one in outcomes)
    parts = [f"{counts[kind]} {kind}" for kind in order if counts[kind]]
    files = "1 file" if len(outcomes) == 1 else f"{len(outcomes)} files"
    return f"{files}: {', '.join(parts) or 'none'}"


def _csv(outcomes: Sequence[Outcome]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for outcome in outcomes:
        writer.writerow(_csv_row(outcome))
    return text.getvalue()


def _csv_row(outcome: Outcome) -> list[object]:
    """One row; what a file may have written into it is a text for every spreadsheet."""
    result, numbers = outcome.result, ["", "", "", ""]
    top = result.top_finding if result is not None else None
    if top is not None and not top.measures_withheld:
        library = "" if top.library_p_value is None else f"{top.library_p_value:.6g}"
        numbers = [f"{top.p_value:.6g}", library, f"{top.score:.6g}", f"{top.degree:.6g}"]
    concept = top.concept_id if top is not None and top.verdict is not Verdict.ALLOW else ""
    return [
        _plain(outcome.found.name),
        str(result.verdict) if result is not None else "ERROR",
        "true" if outcome.code is ExitCode.ALLOW else "false",
        _plain(outcome.reason),
        _plain(concept),
        *numbers,
        str(result.remedy) if result is not None else "",
        result.adapters[0].sha256 if result is not None and result.adapters else "",
        result.decision_id if result is not None else "",
        f"{outcome.seconds:.3f}",
        _plain(outcome.message),
    ]


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _html(outcomes: Sequence[Outcome]) -> str:
    """A page that needs nothing else; everything that comes from files is escaped."""
    import jinja2  # comes with the engine; the other forms need nothing

    from loragate import __version__

    template = Path(__file__).with_name("scan.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        template
    )
    return (
        page.render(
            version=__version__,
            summary=summary(outcomes),
            rows=[_html_row(one) for one in outcomes],
        )
        + "\n"
    )


def _html_row(outcome: Outcome) -> dict[str, object]:
    result = outcome.result
    top = result.top_finding if result is not None else None
    return {
        "name": outcome.found.name,
        "kind": str(result.verdict).lower() if result is not None else "error",
        "verdict": verdict(result) if result is not None else "ERROR",
        "reason": outcome.reason,
        "message": outcome.message,
        "measures": measures(top) if top is not None else ("-", "-", "-"),
        "concept": top.concept_name if top is not None and top.verdict != Verdict.ALLOW else "-",
        "remedy": str(result.remedy).lower().replace("_", " ") if result is not None else "-",
        "sha256": result.adapters[0].sha256 if result is not None and result.adapters else "",
        "findings": [
            (one.concept_name, one.verdict, *measures(one))
            for one in (result.findings if result is not None else ())
            if one.verdict is not Verdict.ALLOW
        ],
        "took": took_s(outcome.seconds),
    }
