"""The sentences of a room: a folder with one YAML file a language, named after the language.

No code names a language, apart from the default one: whatever file lies there is on offer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

DEFAULT_LANGUAGE = "en"
"""Of those who have chosen none of ours, and of what is recorded, such as reasons."""

Sentence = str | Mapping[str, str]
"""A sentence, or its forms by plural category (CLDR: one, few, many, other...)."""

Sentences = tuple[Sentence, ...]


class Catalogue:
    """The sentences of a room, by language and key."""

    def __init__(self, folder: Path) -> None:
        """The files of a folder; they are read when a language is first asked for."""
        self.folder = folder

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages that have a file, as HTML names them ("en", "pt-BR"); the default first."""
        return _languages(self.folder)

    def sentences(self, language: str) -> Mapping[str, Sentences]:
        """Key ("verdict.ALLOW") to its sentences; one unless the key holds a list."""
        return _sentences(self.folder / f"{language}.yaml")


@functools.cache
def _languages(folder: Path) -> tuple[str, ...]:
    found = {file.stem for file in folder.glob("*.yaml")}
    return (DEFAULT_LANGUAGE, *sorted(found - {DEFAULT_LANGUAGE}))


@functools.cache
def _sentences(file: Path) -> Mapping[str, Sentences]:
    return {
        f"{section}.{name}": tuple(value) if isinstance(value, list) else (value,)
        for section, entries in YAML(typ="safe", pure=True).load(file).items()
        for name, value in entries.items()
    }
