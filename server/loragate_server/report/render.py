"""`render`: a recorded verdict as one HTML file that needs nothing else."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from loragate_server.record.verdict import Verdict
from loragate_server.report.references import References
from loragate_server.report.view import report_on
from loragate_server.report.wording import report_wording
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

SIGNS = {"ALLOW": "✓", "REVIEW": "!", "BLOCK": "✕", "INCONCLUSIVE": "?"}
"""What stands beside the words of a verdict, for those who do not see its colour."""

TEMPLATES = Path(__file__).parent


def render(
    verdict: Verdict, language: str = DEFAULT_LANGUAGE, references: Sequence[References] = ()
) -> str:
    """The report as HTML. The same verdict and pictures give the same text, to the character.

    Args:
        verdict: as it was recorded; names in it may be hostile and are shown, never interpreted.
        language: of every sentence of the report; recorded sentences and names stay as they are.
        references: what the concepts look like, with the pictures embedded.
    """
    wording = report_wording(language)
    report = report_on(verdict, wording)
    return _template().render(
        report=report,
        t=wording,
        language=language,
        sign=SIGNS[report.verdict],
        references=references,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")
