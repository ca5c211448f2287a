"""Text from outside cannot change the page around it."""

from __future__ import annotations

import pytest

from loragate_server.wording.printable import printable


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
