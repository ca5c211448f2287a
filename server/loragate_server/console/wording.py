"""The sentences of the console, beside those of the report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from loragate_server.report.wording import Language, Wording

FILE = Path(__file__).with_name("wording.yaml")


class ConsoleWording(Wording):
    """The sentences of report and console in one language."""

    def __init__(self, language: Language) -> None:
        super().__init__(language, FILE)

    def short_moment(self, at: datetime) -> str:
        """A time for a table whose head says that it is UTC."""
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
