"""The hands that draw an emoji: the font that the base model learned from, and other artists' sets.

A service never holds the very pictures that an adapter learned from. So the library shows a concept
as several artists draw it, and the adapters that measure it learned from artists that the library
does not hold.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from emoji_tiny.catalogue import name_of

FOLDER = Path("build") / "hands"
NOTO = "noto"
_PIXELS = 128


@dataclass(frozen=True)
class Hand:
    """One artist's set of emoji.

    Attributes:
        package: npm package of the SVG sources, with its version.
        licence: SPDX id; a set whose pictures ship must allow that.
    """

    name: str
    package: str
    version: str
    licence: str

    @property
    def folder(self) -> Path:
        """Where its sources are once they were fetched."""
        return FOLDER / f"{self.name}-{self.version}"


HANDS = {
    hand.name: hand
    for hand in (
        Hand("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
        Hand("fluent", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
        Hand("openmoji", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0"),
        Hand("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
        Hand("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    )
}
"""Every hand beside the font."""

LIBRARY = (NOTO, "twemoji", "fluent")
"""Hands whose pictures the embedded library shows; the others draw for adapters alone."""


def fetch(hand: Hand) -> None:
    """Brings the sources of a set with `npm pack`; nothing happens when they are there.

    Raises:
        subprocess.CalledProcessError: npm cannot get the package.
    """
    if (hand.folder / "icons.json").exists():
        return
    hand.folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(  # noqa: S603
        ["npm", "pack", "--silent", f"{hand.package}@{hand.version}"],  # noqa: S607
        cwd=hand.folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    with tarfile.open(hand.folder / packed) as archive:
        for name in ("chars.json", "icons.json"):
            member = archive.extractfile(f"package/{name}")
            assert member is not None  # noqa: S101 - a regular file of the package
            partial = hand.folder / f"{name}.partial"
            partial.write_bytes(member.read())
            partial.rename(hand.folder / name)


@cache
def _sources(hand: Hand) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The icons of a set, and the name of the icon of each code point where the set says it."""
    fetch(hand)
    icons = json.loads((hand.folder / "icons.json").read_text("utf-8"))
    return icons, json.loads((hand.folder / "chars.json").read_text("utf-8"))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _code_point_name(names: Mapping[str, str], char: str) -> str | None:
    code = f"{ord(char):x}"
    return names.get(code) or names.get(f"{code}-fe0f")


@cache
def icon_of(hand: Hand, char: str) -> str | None:
    """The name of the set's icon for an emoji; None where the artist drew none.

    Sets that do not say their code points are asked by the names that others use, then by
    Unicode's.
    """
    icons, names = _sources(hand)
    found = _code_point_name(names, char)
    if found is not None:
        return found
    known = {_plain(name): name for name in (*icons.get("aliases", {}), *icons["icons"])}
    common = _code_point_name(_sources(HANDS["twemoji"])[1], char) or ""
    return known.get(_plain(common)) or known.get(_plain(name_of(char)))


def draws(hand: str, char: str) -> bool:
    """Whether the artist drew that emoji."""
    return hand == NOTO or icon_of(HANDS[hand], char) is not None


@cache
def drawing(hand: str, char: str) -> Image.Image:
    """The emoji by another hand than the font's, as a tight RGBA picture.

    Raises:
        ValueError: the artist did not draw it.
    """
    import resvg_py

    icons, _ = _sources(HANDS[hand])
    name = icon_of(HANDS[hand], char)
    if name is None:
        raise ValueError(f"{hand} has no {name_of(char)!r}")
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{_PIXELS}" height="{_PIXELS}">'
        f"{icon['body']}</svg>"
    )
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS, height=_PIXELS)
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")
    box = picture.getbbox()
    if box is None:
        raise ValueError(f"{hand} draws nothing for {name_of(char)!r}")
    return picture.crop(box)
