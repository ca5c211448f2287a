"""Every sentence is there in both languages, and every reason has its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import loragate_server
from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.report.wording import Language, Wording, printable, sentences

SERVER = Path(loragate_server.__file__).parent
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def names(several: tuple[str, ...]) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", " ".join(several)))


def test_both_languages_have_the_same_keys() -> None:
    assert sentences()[Language.EN].keys() == sentences()[Language.JA].keys()
    assert len(sentences()[Language.EN]) > 150


@pytest.mark.parametrize("key", sorted(sentences()[Language.EN]))
def test_a_sentence_says_the_same_in_both_languages(key: str) -> None:
    english, japanese = (sentences()[language][key] for language in Language)
    assert len(english) == len(japanese), "a step is missing"
    assert names(english) == names(japanese)
    assert all(one.strip() == one and one for one in (*english, *japanese))
    assert not JAPANESE.search(" ".join(english))
    if names(japanese) != {"degree"}:  # "{degree} / 100" needs no word
        assert JAPANESE.search(" ".join(japanese)), "is not translated"
    assert not re.search(r"[\u3040-\u9fff][(),:;?]|[(,:;?][\u3040-\u9fff]", " ".join(japanese))


def test_every_word_of_a_decision_is_known() -> None:
    wording = Wording(Language.JA)
    for kind in VerdictKind:
        assert all(wording(f"{s}.{kind}") for s in ("verdict", "would_be", "binding", "judged"))
    assert all(wording(f"remedy.{one}") and wording.every(f"steps.{one}") for one in Remedy)
    assert all(wording(f"mode.{mode}") for mode in Mode)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Acme", "Acme"),
        ("日本語 😀\u200d", "日本語 😀\u200d"),
        ("exe.\u202egnp", "exe.\ufffdgnp"),
        ("a\0b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("\ud800", "\ufffd"),
        ("two\r\nlines", "two lines"),
    ],
)
def test_what_would_change_the_page_around_it_is_marked(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut_where_it_says() -> None:
    assert printable("x" * 100, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
