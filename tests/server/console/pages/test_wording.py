"""Every sentence of the console is there in both languages, and every sentence is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import loragate_server.console
from loragate_server.console.wording import FILE, ConsoleWording
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.reviews.review import ReviewAction, ReviewState
from loragate_server.record.reviews.reviews import RefusalCode
from loragate_server.report.wording import Language, sentences

CONSOLE = Path(loragate_server.console.__file__).parent
ENGLISH = sentences(FILE)[Language.EN]
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
WITHOUT_WORDS = {"pilot.setting", "concepts.id"}
"""The same in both languages: the name of a setting, and an abbreviation."""


def names(several: tuple[str, ...]) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", " ".join(several)))


@pytest.mark.parametrize("key", sorted(ENGLISH))
def test_a_sentence_says_the_same_in_both_languages(key: str) -> None:
    english, japanese = (sentences(FILE)[language][key] for language in Language)
    assert len(english) == len(japanese)
    assert names(english) == names(japanese)
    assert all(one.strip() == one and one for one in (*english, *japanese))
    assert not JAPANESE.search(" ".join(english))
    words = re.sub(r"\{\w+\}|\W", "", " ".join(english))
    if words and key not in WITHOUT_WORDS and words != "to":  # "{low} to {high}" is "～"
        assert JAPANESE.search(" ".join(japanese)), "is not translated"
    assert not re.search(r"[\u3040-\u9fff][(),:;?]|[(,:;?][\u3040-\u9fff]", " ".join(japanese))


def test_both_languages_have_the_same_keys_and_the_report_keeps_its_own() -> None:
    assert ENGLISH.keys() == sentences(FILE)[Language.JA].keys()
    assert not ENGLISH.keys() & sentences()[Language.EN].keys()
    assert len(ENGLISH) > 150


def test_every_word_of_a_review_is_known() -> None:
    wording = ConsoleWording(Language.JA)
    assert all(wording(f"state.{one.value}") for one in ReviewState)
    assert all(wording(f"refused.{one.value}") for one in RefusalCode)
    assert all(wording(f"{part}.{one.value}") for part in ("event", "act") for one in ReviewAction)
    assert all(wording(f"verdict.{kind.value}") for kind in VerdictKind)


@pytest.mark.parametrize("key", sorted(ENGLISH))
def test_every_sentence_is_used(key: str) -> None:
    section, name = key.split(".", 1)
    used = "".join(
        file.read_text().replace("'", '"')
        for file in CONSOLE.rglob("*")
        if file.suffix in {".py", ".j2"} and "access" not in file.parts
    )
    # written out, or put together from a section and a name such as "state." ~ one.state
    stem = re.match(r"title_|text_|role_|report_", name)
    parts = {f'"{section}."', f'"{section}.{{', f'"{section}.{stem[0] if stem else " "}'}
    assert f'"{key}"' in used or any(part in used for part in parts), "is not used"
