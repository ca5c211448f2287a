"""What the server's wheel holds beside code: the embedded base model, its calibration, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.lock_image import ROOT

PACKAGE = ROOT / "server"
ASSETS = PACKAGE / "loragate_server" / "assets" / "emoji_tiny"
PIPELINE = ASSETS / "pipeline"
PICTURES = ASSETS / "concepts" / "pictures"
MODEL = "emoji-tiny"
OURS = "Apache-2.0"

HANDS = {
    "noto": ("Noto Color Emoji", "OFL-1.1 AND Apache-2.0"),
    "twemoji": ("Twemoji", "CC-BY-4.0"),
    "fluent": ("Fluent Emoji", "MIT"),
}
"""Beginning of the names of pictures to whose artwork they show, and its licence: see NOTICE."""


@dataclass(frozen=True)
class AssetFile:
    """One file.

    Attributes:
        path: as a wheel has it.
        sha256: lower-case hexadecimal, of its bytes.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class PictureSet:
    """The reference pictures of one artist.

    Attributes:
        hand: what their names begin with.
        artwork: what they are renderings of.
        licence: SPDX expression.
        count: of files.
        sha256: of what `sha256sum` prints of all of them, in the order of their paths as bytes.
    """

    hand: str
    artwork: str
    licence: str
    count: int
    sha256: str


def model_files() -> tuple[AssetFile, ...]:
    """Configuration and weights of the embedded base model."""
    return tuple(_files(PIPELINE.rglob("*")))


def data_files() -> tuple[AssetFile, ...]:
    """Calibration, harmless adapters in short, and the list of concepts."""
    return tuple(_files([*ASSETS.glob("*"), *(ASSETS / "concepts").glob("*")]))


def model_digest() -> str:
    """The digest by which verdicts name the embedded base model (`base_digest`)."""
    from loragate_server.models.loading import digest_of_folder  # here: it loads torch

    return digest_of_folder(PIPELINE)


def picture_sets() -> tuple[PictureSet, ...]:
    """The pictures, by artist.

    Raises:
        ValueError: one is of nobody whose licence is written down.
    """
    names = sorted(PICTURES.rglob("*.png"))
    by_hand: dict[str, list[Path]] = {hand: [] for hand in HANDS}
    for path in names:
        hand = path.name.partition("-")[0]
        if hand not in HANDS:
            raise ValueError(f"{path}: of whom is it? NOTICE and HANDS have to say so")
        by_hand[hand].append(path)
    return tuple(
        PictureSet(hand, *HANDS[hand], len(paths), _listed(paths))
        for hand, paths in by_hand.items()
    )


def _files(paths: Iterable[Path]) -> Iterator[AssetFile]:
    for path in sorted(paths, key=_inside):  # as `LC_ALL=C sort` has them
        if path.is_file():
            yield AssetFile(_inside(path), hashlib.sha256(path.read_bytes()).hexdigest())


def _listed(paths: Iterable[Path]) -> str:
    lines = (f"{one.sha256}  {one.path}\n" for one in _files(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()
