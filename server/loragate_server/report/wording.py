"""The sentences of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loragate_server.wording.catalogue import Catalogue
from loragate_server.wording.wording import Wording

REPORT: Final = Catalogue(Path(__file__).with_name("languages"))


def report_wording(language: str) -> Wording:
    """The sentences of the report in one of its languages."""
    return Wording(language, REPORT)
