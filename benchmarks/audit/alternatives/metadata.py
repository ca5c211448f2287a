"""The floor: does the file say what it learned?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.derive import Subject

_NAMES_OF_FILES = ("ss_output_name",)
"""Not looked at, like the names of the files themselves: in the zoo they hold the code point of
the emoji, which nobody who uploads a forbidden concept would write there."""


def names(declared: Mapping[str, str], concept: str) -> bool:
    """Whether a header value holds the concept's name, however its words are joined."""
    wanted = _plain(concept)
    values = (value for key, value in declared.items() if key not in _NAMES_OF_FILES)
    return any(wanted in _plain(value) for value in values)


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


class Metadata:
    """Score: 1 when the header names the concept, else 0."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.facts: dict[str, float] = {}

    def knows(self, concept: str) -> bool:
        """Every concept has a name."""
        return concept in self._tools.by_id

    def warm(self, concept: str) -> None:
        """Nothing depends on the concept alone."""

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        """Reads the file as intake does."""
        adapters = subject.read(self._tools.base)

        def score(concept: str) -> float:
            name = self._tools.by_id[concept].name
            return float(any(names(adapter.declared, name) for adapter, _ in adapters))

        return score
