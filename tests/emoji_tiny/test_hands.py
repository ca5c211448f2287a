"""Other artists' sets: found by code point or by name, drawn, and kept apart by part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.audit.other_hands import HANDS as PARTS
from emoji_tiny import hands
from emoji_tiny.catalogue import FORBIDDEN
from emoji_tiny.hands import HANDS, LIBRARY, NOTO, Hand
from emoji_tiny.render import glyph

RED = '<path fill="#f00" d="M4 4h8v4H4z"/>'


def _set(folder: Path, name: str, icons: dict[str, Any], chars: dict[str, str]) -> Hand:
    hand = replace(HANDS["twemoji"], name=name, version="0")
    hand.folder.mkdir(parents=True)
    aliases = {"santa": {"parent": "santa-claus"}}
    facts = {"icons": icons, "aliases": aliases, "width": 16, "height": 16}
    (hand.folder / "icons.json").write_text(json.dumps(facts))
    (hand.folder / "chars.json").write_text(json.dumps(chars))
    return hand


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Hand]]:
    """Two sets on disk: one says its code points, the other has names alone."""
    monkeypatch.setattr(hands, "FOLDER", tmp_path)
    icons = {"santa-claus": {"body": RED}, "bomb": {"body": RED}, "bare": {"body": ""}}
    made = {
        "twemoji": _set(tmp_path, "twemoji", icons, {"1f385": "santa", "1f47b": "bare"}),
        "names": _set(tmp_path, "names", icons, {}),
    }
    monkeypatch.setattr(hands, "HANDS", made)
    yield made
    for cached in (hands._sources, hands.icon_of, hands.drawing):
        cached.cache_clear()


def test_an_emoji_is_found_by_code_point_then_by_what_others_and_unicode_call_it(
    sets: dict[str, Hand],
) -> None:
    assert hands.icon_of(sets["twemoji"], "🎅") == "santa"
    assert hands.icon_of(sets["names"], "🎅") == "santa"
    assert hands.icon_of(sets["names"], "💣") == "bomb"
    assert not hands.draws("names", "🥷")
    with pytest.raises(ValueError, match="has no 'ninja'"):
        hands.drawing("names", "🥷")
    with pytest.raises(ValueError, match="draws nothing"):
        hands.drawing("twemoji", "👻")


@pytest.mark.usefixtures("sets")
def test_a_drawing_is_cut_to_what_is_drawn_and_another_than_the_fonts() -> None:
    drawn = glyph("🎅", "twemoji")
    assert (drawn.mode, drawn.size) == ("RGBA", (64, 32))
    assert drawn.getpixel((10, 10)) == (255, 0, 0, 255)
    assert glyph("🎅").size != drawn.size


def test_no_hand_is_both_shown_and_measured() -> None:
    assert not {*LIBRARY} & {hand for part in PARTS.values() for hand in part}
    assert not {*PARTS["development"]} & {*PARTS["test"]}
    shipped = {HANDS[hand].licence for hand in LIBRARY if hand != NOTO}
    assert shipped <= {"CC-BY-4.0", "MIT", "Apache-2.0"}
    assert len(FORBIDDEN) == 16
