"""Every word that the console needs is there, and every sentence is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import loragate_server.console
from loragate_server.console.wording import CONSOLE, console_wording
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.reviews.review import ReviewAction, ReviewState
from loragate_server.record.reviews.reviews import RefusalCode
from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

FOLDER = Path(loragate_server.console.__file__).parent
SENTENCES = CONSOLE.sentences(DEFAULT_LANGUAGE)


@pytest.mark.parametrize("language", CONSOLE.languages)
def test_every_word_of_a_review_is_known(language: str) -> None:
    wording = console_wording(language)
    assert all(wording(f"state.{one.value}") for one in ReviewState)
    assert all(wording(f"refused.{one.value}") for one in RefusalCode)
    assert all(wording(f"{part}.{one.value}") for part in ("event", "act") for one in ReviewAction)
    assert all(wording(f"verdict.{kind.value}") for kind in VerdictKind)


@pytest.mark.parametrize("key", sorted(SENTENCES))
def test_every_sentence_is_used(key: str) -> None:
    section, name = key.split(".", 1)
    used = "".join(
        file.read_text().replace("'", '"')
        for file in FOLDER.rglob("*")
        if file.suffix in {".py", ".j2"} and "access" not in file.parts
    )
    # written out, or put together from a section and a name such as "state." ~ one.state
    stem = re.match(r"title_|text_|role_", name)
    parts = {f'"{section}."', f'"{section}.{{', f'"{section}.{stem[0] if stem else " "}'}
    assert f'"{key}"' in used or any(part in used for part in parts), "is not used"
