"""Outcomes as JUnit XML, in which CI systems count one test per adapter."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from loragate.cli.exit_code import ExitCode
from loragate.cli.outcome import Outcome


def text(outcomes: Sequence[Outcome], suite_name: str) -> str:
    """One suite: a failure for each decision that lets nothing in, an error for a refusal.

    What only a pilot lets in passes, and its output says what enforcing would do.
    """
    codes = [outcome.code for outcome in outcomes]
    counts = {
        "tests": str(len(codes)),
        "failures": str(sum(code not in (ExitCode.ALLOW, ExitCode.ERROR) for code in codes)),
        "errors": str(codes.count(ExitCode.ERROR)),
        "time": f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    }
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": suite_name, **counts})
    for outcome in outcomes:
        case = ET.SubElement(
            suite,
            "testcase",
            {
                "classname": "loragate",
                "name": _clean(outcome.found.name),
                "time": f"{outcome.seconds:.3f}",
            },
        )
        if outcome.code is not ExitCode.ALLOW:
            kind = "error" if outcome.code is ExitCode.ERROR else "failure"
            message = _clean(outcome.message)
            ET.SubElement(case, kind, {"type": outcome.reason, "message": message}).text = message
        elif outcome.is_worth_a_look:
            ET.SubElement(case, "system-out").text = _clean(outcome.message)
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _clean(said: str) -> str:
    """The text without characters that XML cannot hold."""
    return "".join(
        "?" if unicodedata.category(one) in ("Cc", "Cs", "Cn") and one not in "\t\n" else one
        for one in said
    )
