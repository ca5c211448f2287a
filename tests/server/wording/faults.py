"""What a file of a language lacks, beside that of the default language."""

from __future__ import annotations

import re

from babel import Locale

from loragate_server.wording.catalogue import DEFAULT_LANGUAGE, Catalogue, Sentences

OWN = {"time.moment", "time.zone"}
"""Not sentences but what readers of a language share, so each file has its own."""


def texts(sentences: Sentences) -> list[str]:
    """All that is written, every plural form by itself."""
    return [
        text
        for sentence in sentences
        for text in ([sentence] if isinstance(sentence, str) else sentence.values())
    ]


def names(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def faults(catalogue: Catalogue, language: str) -> list[str]:
    """One line for each sentence that is missing or does not say what the default one says."""
    known, given = catalogue.sentences(DEFAULT_LANGUAGE), catalogue.sentences(language)
    found = [f"{key}: is missing" for key in known if key not in given]
    found += [f"{key}: is unknown" for key in given if key not in known]
    for key in known.keys() & given.keys() - OWN:
        if len(known[key]) != len(given[key]):
            found.append(f"{key}: has {len(given[key])} entries, not {len(known[key])}")
        for one, other in zip(known[key], given[key], strict=False):
            wanted = set().union(*map(names, texts((one,))))
            found += [
                f"{key}: has other names" for text in texts((other,)) if names(text) != wanted
            ]
            if not isinstance(other, str) and set(other) != plurals(language):
                found.append(f"{key}: has the forms {sorted(other)}")
        found += [
            f"{key}: is blank" for text in texts(given[key]) if not text.strip() == text != ""
        ]
    return sorted(found)


def plurals(language: str) -> set[str]:
    """The plural categories that a language tells apart."""
    return {*Locale.parse(language, sep="-").plural_form.tags, "other"}
