"""A language is a file in each catalogue, and every file says all that the others say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import loragate_server
from loragate_server.access.pages import ACCESS
from loragate_server.access.refusals import Refusal
from loragate_server.console.wording import CONSOLE
from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.report.wording import REPORT, report_wording
from loragate_server.trials.page import EVALUATION
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE, Catalogue
from tests.server.wording.faults import faults, names, texts

SERVER = Path(loragate_server.__file__).parent
CATALOGUES = {
    "access": ACCESS,
    "console": CONSOLE,
    "report": REPORT,
    "trials": EVALUATION,
}
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
WITHOUT_WORDS = {"pilot.setting", "concepts.id", "degree.of_100", "time.zone"}
"""The same in every language, such as the name of a setting or an abbreviation."""


def every_sentence(language: str) -> Iterator[tuple[str, str]]:
    for catalogue in CATALOGUES.values():
        for key, sentences in catalogue.sentences(language).items():
            yield from ((key, text) for text in texts(sentences))


def test_every_catalogue_has_the_same_languages() -> None:
    assert REPORT.languages == CONSOLE.languages == ACCESS.languages == EVALUATION.languages
    assert REPORT.languages[0] == DEFAULT_LANGUAGE
    assert set(REPORT.languages) >= {"en", "ja"}


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize("room", CATALOGUES)
def test_no_sentence_of_a_language_is_missing_or_says_something_else(
    room: str, language: str
) -> None:
    assert faults(CATALOGUES[room], language) == []


def test_the_catalogues_share_no_key_and_none_is_empty() -> None:
    report, console, access = (
        set(one.sentences(DEFAULT_LANGUAGE)) for one in (REPORT, CONSOLE, ACCESS)
    )
    assert len(report) > 150
    assert len(console) > 150
    assert len(access) > 30
    assert not report & console


@pytest.mark.parametrize("language", REPORT.languages)
def test_every_word_of_a_decision_is_known(language: str) -> None:
    wording = report_wording(language)
    for kind in VerdictKind:
        assert all(wording(f"{s}.{kind}") for s in ("verdict", "would_be", "binding", "judged"))
    assert all(wording(f"remedy.{one}") and wording.every(f"steps.{one}") for one in Remedy)
    assert all(wording(f"mode.{mode}") for mode in Mode)


@pytest.mark.parametrize("language", ACCESS.languages)
def test_every_refusal_has_its_words(language: str) -> None:
    known = ACCESS.sentences(language)
    for code in (*Refusal, "signed_out", "signing_out"):
        assert {f"{code}.title", f"{code}.text"} <= set(known)


def test_english_is_in_latin_letters() -> None:
    assert [key for key, text in every_sentence("en") if JAPANESE.search(text)] == []


@pytest.mark.parametrize("room", CATALOGUES)
def test_every_sentence_with_words_is_translated_into_japanese(room: str) -> None:
    english, japanese = (CATALOGUES[room].sentences(one) for one in ("en", "ja"))
    for key in english.keys() - WITHOUT_WORDS:
        words = re.sub(r"\{\w+\}|\W", "", " ".join(texts(english[key])))
        if words and words != "to":  # "{low} to {high}" is "～"
            assert JAPANESE.search(" ".join(texts(japanese[key]))), key


@pytest.mark.parametrize("room", ["console", "report"])
def test_japanese_has_japanese_punctuation(room: str) -> None:
    for key, sentences in CATALOGUES[room].sentences("ja").items():
        text = " ".join(texts(sentences))
        assert not re.search(r"[\u3040-\u9fff][(),:;?]|[(,:;?][\u3040-\u9fff]", text), key


def test_no_code_names_a_language_but_the_default_one() -> None:
    found = []
    for file in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in REPORT.languages:
                found.append(str(file.relative_to(SERVER)))
    for file in SERVER.rglob("*.j2"):
        text = file.read_text(encoding="utf-8")
        found += [file.name for one in REPORT.languages if f'"{one}"' in text]
    assert found == ["wording/catalogue.py"]


FRENCH = """verdict:
  ALLOW: Autorisé
where:
  some:
    one: "{some} sur {count} adaptateur"
    other: "{some} sur {count} adaptateurs"
steps:
  pilot: []
  extra: [Encore.]
"""


def test_what_a_new_language_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "en.yaml").write_text((REPORT.folder / "en.yaml").read_text(encoding="utf-8"))
    (tmp_path / "fr.yaml").write_text(FRENCH, encoding="utf-8")
    catalogue = Catalogue(tmp_path)
    assert catalogue.languages == ("en", "fr")
    found = faults(catalogue, "fr")
    assert "verdict.BLOCK: is missing" in found
    assert "steps.extra: is unknown" in found
    assert "steps.pilot: has 0 entries, not 1" in found
    assert "where.some: has the forms ['one', 'other']" in found, "French has `many` as well"
    assert not any(line.startswith("verdict.ALLOW:") for line in found)


def test_names_are_found_in_braces() -> None:
    assert names("{first} and {second} of 2") == {"first", "second"}
