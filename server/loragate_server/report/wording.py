"""The sentences of the report, by key and language; they stand in `wording.yaml`."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import ChainMap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

from ruamel.yaml import YAML

FILE = Path(__file__).with_name("wording.yaml")
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Co"})
# They reorder or hide what surrounds them: a name must not rewrite the sentence about it.
_REORDERING = re.compile("[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

_JAPAN = timezone(timedelta(hours=9))

Sentences = tuple[str, ...]


class Language(StrEnum):
    """Language of a report."""

    EN = "en"
    JA = "ja"


class Wording:
    """The sentences in one language."""

    def __init__(self, language: Language, *files: Path) -> None:
        """The sentences of the report, and those of further files of the same form."""
        self.language = language
        self._sentences = ChainMap(*(dict(sentences(file)[language]) for file in (FILE, *files)))

    def __call__(self, key: str, **facts: object) -> str:
        """The sentence of a key, with its {names} filled in.

        Raises:
            KeyError: there is no such key, or a name is not given.
        """
        [sentence] = self._sentences[key]
        return sentence.format(**facts)

    def every(self, key: str, **facts: object) -> Sentences:
        """All sentences of a key that holds a list; KeyError as in a call."""
        return tuple(sentence.format(**facts) for sentence in self._sentences[key])

    def known(self, key: str) -> bool:
        """Whether there is a sentence for the key."""
        return key in self._sentences

    def moment(self, at: datetime) -> str:
        """A timezone-aware time in UTC, and for readers in Japan in their own time as well."""
        utc = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        if self.language is Language.EN:
            return utc
        local = at.astimezone(_JAPAN)
        day = f"{local.year}年{local.month}月{local.day}日"
        return f"{day} {local:%H:%M:%S}（日本時間）／ {utc}"

    def name(self, kind: str, value: str) -> str:
        """The word for a value that a library may extend, such as a category; else the value."""
        key = f"{kind}.{value}"
        return self(key) if self.known(key) else printable(value)


def printable(text: str, limit: int = 0) -> str:
    """Text from outside, fit for a page: what is invisible or reorders its surroundings is marked.

    Args:
        text: for example a name that the maker of a file chose.
        limit: most characters, the last one then an ellipsis; 0 for all.
    """
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in _INVISIBLE else one
        for one in _REORDERING.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"[\t\r\n]+", " ", text))
    )
    return shown if not limit or len(shown) <= limit else f"{shown[: limit - 1].rstrip()}…"


@functools.cache
def sentences(file: Path = FILE) -> Mapping[Language, Mapping[str, Sentences]]:
    """Language to key ("verdict.ALLOW") to its sentences; one unless the key holds a list."""
    found: dict[Language, dict[str, Sentences]] = {language: {} for language in Language}
    for section, entries in YAML(typ="safe", pure=True).load(file).items():
        for name, by_language in entries.items():
            for language, value in by_language.items():
                several = tuple(value) if isinstance(value, list) else (value,)
                found[Language(language)][f"{section}.{name}"] = several
    return found
