"""Pictures for a new concept, gathered from files and folders; a folder is one hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from loragate_server.errors import ErrorReason, NoDecisionError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_TEXTS = (".txt", ".caption", ".md", ".json", ".jsonl", ".csv", ".yaml", ".yml")
"""What lies beside pictures and says something of them."""


def gather(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Every picture with its hand; an empty name for pictures that nobody sorted.

    Args:
        paths: picture files, or folders of pictures: each is one hand and named like it. A folder
            that holds folders stands for those.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID for a folder without pictures, and for files
            beside folders, whose hand nobody can tell.
    """
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        return [(path, "") for path in paths]
    loose = next((path for path in paths if not path.is_dir()), None)
    if loose is not None:
        raise _invalid(
            f"{loose} is a file beside folders, and nobody can tell its hand.",
            "Give files alone, or folders alone: one for each artist, shoot or source.",
        )
    found = [each for folder in folders for each in _in_folder(folder)]
    hands = _hands(folder for _, folder in found)
    return [(path, hands[folder.resolve()]) for path, folder in found]


def passed_over(paths: Sequence[Path]) -> list[Path]:
    """Files that `gather` leaves out of folders, but for hidden ones and texts."""
    found: list[Path] = []
    for folder in (path for path in paths if path.is_dir()):
        for path in sorted(one for one in folder.iterdir() if not one.name.startswith(".")):
            if path.is_dir():
                found += passed_over([path])
            elif path.suffix.lower() not in (*SUFFIXES, *_TEXTS):
                found.append(path)
    return found


def _hands(folders: Iterable[Path]) -> dict[Path, str]:
    """A name for each folder, as a manifest takes it.

    Of two that are called alike the later one gets a number, for they are two hands.
    """
    hands: dict[Path, str] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        name, own = _name(folder), 1
        while (hand := name if own == 1 else f"{name[:60]}-{own}") in hands.values():
            own += 1
        hands[folder] = hand
    return hands


def _in_folder(folder: Path) -> Iterator[tuple[Path, Path]]:
    inside = sorted(folder.iterdir())
    pictures = [path for path in inside if path.suffix.lower() in SUFFIXES]
    folders = [path for path in inside if path.is_dir()]
    if pictures and folders:
        raise _invalid(
            f"Folder {folder} holds pictures beside folders, and nobody can tell their hand.",
            "Sort its pictures into folders: one for each artist, shoot or source.",
        )
    if not pictures and not folders:
        raise _invalid(
            f"Folder {folder} holds no picture.", f"Put {', '.join(SUFFIXES)} files into it."
        )
    for path in pictures:
        yield path, folder
    for path in folders:
        yield from _in_folder(path)


def _name(folder: Path) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", folder.name.lower()).strip("-._")[:64] or "hand"


def _invalid(message: str, remedy: str) -> NoDecisionError:
    return NoDecisionError(ErrorReason.CONCEPT_PICTURES_INVALID, message, remedy=remedy)
