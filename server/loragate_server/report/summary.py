"""What a scan of a catalogue found, as one HTML page for people who are no engineers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from loragate_server.policy.decision import VerdictKind
from loragate_server.report.render import SIGNS, TEMPLATES
from loragate_server.report.wording import report_wording
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

ORDER = (VerdictKind.BLOCK, VerdictKind.REVIEW, VerdictKind.INCONCLUSIVE, VerdictKind.ALLOW)
"""In which verdicts are listed: what somebody has to do something about comes first."""


@dataclass(frozen=True)
class Counted:
    """How many files something is true of.

    Attributes:
        name: of a concept, a blocked file or a reason, as the record has it; maybe hostile.
        blocked: of the files, those that were or would be blocked.
    """

    name: str
    files: int
    blocked: int = 0


@dataclass(frozen=True)
class Summary:
    """What a scan found.

    Attributes:
        scan_id: of the scan.
        files: places that have a result.
        verdicts: of the policy by verdict, whether or not it binds.
        pilot: whether some verdicts do not bind.
        same: places whose bytes lie at another place too.
        concepts: those that files were blocked or suspected for, the most files first.
        families: blocked files of which others are made, the most of them first.
        refused: reasons for which files have no decision, the most files first.
        stages: stage to seconds, of all files together.
    """

    scan_id: str
    files: int
    verdicts: dict[VerdictKind, int]
    pilot: bool
    same: int
    concepts: Sequence[Counted]
    families: Sequence[Counted]
    refused: Sequence[Counted]
    stages: dict[str, float]

    @property
    def refused_files(self) -> int:
        """Places without a decision."""
        return sum(one.files for one in self.refused)

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.stages.values())


def render_summary(summary: Summary, language: str = DEFAULT_LANGUAGE) -> str:
    """The page. The same summary gives the same text, character by character."""
    return _template().render(
        s=summary, t=report_wording(language), language=language, order=ORDER, signs=SIGNS
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
    return environment.get_template("summary.html.j2")
