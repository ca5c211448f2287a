"""The sentences of the console, beside those of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loragate_server.report.wording import REPORT
from loragate_server.wording.catalogue import Catalogue
from loragate_server.wording.wording import Wording

CONSOLE: Final = Catalogue(Path(__file__).with_name("languages"))


def console_wording(language: str) -> Wording:
    """The sentences of console and report in one of their languages."""
    return Wording(language, CONSOLE, REPORT)
