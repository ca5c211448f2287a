"""Words for ordinary things: some for the neutral bank, others for subjects of harmless adapters.

The list is shuffled once and for all, so that every stretch of it is a mixture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from loragate_server.concepts.concept import Concept
from loragate_server.trials.errors import TrialError

NOUNS = Path(__file__).with_name("nouns.txt")
MOST_LETTERS = 80
_EVALUATED = 3
"""About one subject in so many is kept for the evaluation."""


class Part(Enum):
    """What adapters are trained for. No subject serves both."""

    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"


def read_nouns(file: Path = NOUNS) -> tuple[str, ...]:
    """The words of a file, one a line; lines that begin with # are left out, and so are repeats.

    Raises:
        TrialError: a word is too long or none; the file is no text.
        OSError: it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TrialError(f"{file} is no text in UTF-8") from error
    words: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        word = " ".join(line.split())
        if not word or word.startswith("#"):
            continue
        if len(word) > MOST_LETTERS or not word.isprintable() or not slug(word):
            raise TrialError(
                f"{file}:{number}: write one noun a line, of at most {MOST_LETTERS} letters, "
                "with a letter a to z or a digit in it"
            )
        words[word] = None
    return tuple(words)


def slug(word: str) -> str:
    """A word as the id of a concept; empty where nothing of it can stand there."""
    return re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:64].strip("-")


def without_forbidden(words: Iterable[str], forbidden: Iterable[Concept]) -> tuple[str, ...]:
    """The words that name nothing forbidden: none is in an id, a name or a prompt of a concept.

    A neutral teapot beside a forbidden one would hide it.
    """
    told = " ".join(" ".join((one.concept_id, one.name, *one.prompts)) for one in forbidden)
    known = f" {slug_words(told)} "
    return tuple(
        word
        for word in words
        if not any(f" {slug_words(word)}{ending} " in known for ending in ("", "s", "es"))
    )


def slug_words(text: str) -> str:
    """The words of a text as ids have them, with spaces between."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def share(names: Sequence[str], part: Part) -> tuple[str, ...]:
    """The names that one part may use. A name is of the same part whatever stands beside it."""
    return tuple(name for name in names if _is_evaluated(name) == (part is Part.EVALUATE))


def _is_evaluated(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % _EVALUATED == 0
