"""What LocalAI's own build of stable-diffusion.cpp loads for the tags of a prompt.

A tag is `<lora:NAME:NUMBER...>`, in these letters. The name goes to the first colon, what follows
the number is passed over, and a tag whose number cannot be read is left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.reading.findings import Found, Spelling, Spot, as_path, below
from loragate_server.intercept.reading.lora_files import LoraFiles, stem_of
from loragate_server.intercept.reading.references import (
    WEIGHT_SUFFIXES,
    anywhere,
    in_folder,
    is_file,
    is_there,
)
from loragate_server.intercept.reading.strengths import strength_in_text
from loragate_server.intercept.refusals import Location, ambiguous_adapter

# Any tag, also of other servers: what this one takes for none is refused, not passed over.
_BEGIN = re.compile(r"<(?:lora|lyco|loractl|hypernet):", re.IGNORECASE)
_READ = "<lora:"
_HIGH_NOISE = "|high_noise|"
"""Begins the name of a LoRA for the second model of a video, which draws first."""
_BLANKS = " \t\n\v\f\r"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX]")
_LEAST, _MOST = 1.2e-38, 3.4e38
"""A float is read, and a number that it cannot hold is none."""

_KNOWN_BY_STEM = (".safetensors", ".ckpt", ".pt", ".gguf")
_TRIED = (".pt", ".safetensors", ".gguf")
"""Put behind a name that no file has, in this order."""
_UNSPEAKABLE = re.compile(r"[:<>|\x00]")
_REMEDY = "Write <lora:name:strength>."


@dataclass(frozen=True)
class Prompt:
    """A text that the server reads tags in.

    Attributes:
        text: all of what stands at `location`.
        span: the part of it that is the prompt.
        picture: the number of the picture that is drawn for it.
        negative: whether it is a negative prompt. Its tags are read and, today, not loaded.
        form_field: the field of a form that it is; None where the body is JSON.
        editable: whether the body can be given another text there.
    """

    location: Location
    text: str
    span: tuple[int, int]
    picture: int = 0
    negative: bool = False
    form_field: str | None = None
    editable: bool = True


@dataclass(frozen=True)
class Mention:
    """A LoRA that a tag names.

    Attributes:
        high_noise: whether it is for the second model of a video alone.
    """

    found: Found
    prompt: Prompt
    high_noise: bool


def holds_tag(text: str, begin: int = 0, end: int = sys.maxsize) -> bool:
    """Whether a text holds what any server would take for the beginning of a tag."""
    return "<" in text and _BEGIN.search(text, begin, end) is not None


def mentions_in(prompt: Prompt, files: LoraFiles, place: str) -> Iterator[Mention]:
    """The LoRAs of a prompt.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS or ADAPTER_UNNAMED for a tag that is not plain.
    """
    text, (at, last) = prompt.text, prompt.span
    if not holds_tag(text, at, last):
        return
    if text.find("\0", at, last) >= 0:
        raise ambiguous_adapter(place, "holds a null, where the server ends it.", "Leave it out.")
    for match in _BEGIN.finditer(text, at, last):
        begin = match.end()
        end = text.find(">", begin, last)
        colon = text.find(":", begin, max(end, begin))
        if match[0] != _READ or match.start() < at or colon <= begin or colon + 1 == end:
            raise _no_tag(place)
        at = end
        force = _number(text[colon + 1 : end], place)
        high_noise = text.startswith(_HIGH_NOISE, begin)
        begin += len(_HIGH_NOISE) if high_noise else 0
        name = text[begin:colon]
        reference = _reference(name, files, place, Strength(force, force))
        spot = Spot(
            prompt.location,
            text,
            (begin, colon),
            prompt.form_field,
            _spelled(as_path if name.startswith("/") else below(files.folder)),
        )
        found = Found(reference, place, spot if prompt.editable else None)
        yield Mention(found, prompt, high_noise)


def sets_of(mentions: Sequence[Mention]) -> list[list[int]]:
    """By their numbers, the LoRAs that may be active together.

    Pictures are drawn one by one. The two models of a video take each its own, and those of the
    negative prompt may be added.
    """
    by_model: dict[tuple[int, bool], list[int]] = {}
    for number, one in enumerate(mentions):
        by_model.setdefault((one.prompt.picture, one.high_noise), []).append(number)
    return [
        members
        for both in by_model.values()
        for members in ([n for n in both if not mentions[n].prompt.negative], both)
    ]


def _number(text: str, place: str) -> float:
    text = text.lstrip(_BLANKS)
    match = _NUMBER.match(text)
    if match is None or _HEXADECIMAL.match(text):
        raise _no_tag(place)
    number = strength_in_text(match[0], place)
    if number and not _LEAST <= abs(number) <= _MOST:
        raise _no_tag(place)
    return number


def _no_tag(place: str) -> Exception:
    return ambiguous_adapter(place, "holds what is no whole tag to this server.", _REMEDY)


def _reference(name: str, files: LoraFiles, place: str, strength: Strength) -> AdapterReference:
    if name.startswith("/"):
        given = anywhere(name, place, strength, hub_ids=False)
        path = given.path or ""
        return replace(given, path=_completed(path, place) or path)
    given = in_folder(name, files.folder, place, strength)
    paths = files.meant(name, _of_stem)
    if len(paths) > 1:
        raise ambiguous_adapter(
            place,
            f"is the name of {len(paths)} files, {paths[0]} and {paths[1]} among them.",
            "Rename all but one, or write the whole name of the file.",
        )
    folder = files.folder.rstrip("/")
    if paths:
        return replace(given, path=f"{folder}/{paths[0]}")
    whole = name.lower().endswith(WEIGHT_SUFFIXES)
    missing = f"{folder}/{name}{'' if whole else '.safetensors'}"
    return replace(given, path=_completed(f"{folder}/{name}", place) or missing)


def _of_stem(name: str, files: LoraFiles) -> tuple[str, ...]:
    """The files of a stem: those in the folder itself, not below, and the letters' case last.

    Of stems that differ in that alone, the server takes the first in the order of their bytes; of
    files that differ in the suffix alone, the one that its file system lists last.
    """
    known: dict[str, list[str]] = {}
    for path in files.names:
        alike = "/" not in path and _lowered(stem_of(path)) == _lowered(name)
        known_so = alike and PurePosixPath(path).suffix in _KNOWN_BY_STEM
        if known_so and is_file(f"{files.folder}/{path}"):
            known.setdefault(stem_of(path), []).append(path)
    if not known:
        return ()
    return tuple(known[name if name in known else min(known, key=os.fsencode)])


def _lowered(text: str) -> bytes:
    """As C does it: letters of other alphabets stay."""
    return os.fsencode(text).lower()


def _completed(path: str, place: str) -> str | None:
    """The file of that path, or of one with a suffix behind it; None where there is none."""
    for one in (path, *(path + suffix for suffix in _TRIED)):
        if is_file(one):
            return one
        if is_there(one):
            raise ambiguous_adapter(place, "is the name of a folder.", "Name a file.")
    return None


def _spelled(spelling: Spelling) -> Spelling:
    """A path as a tag can hold it, with its suffix: as a stem it may mean another file."""

    def spell(path: str) -> str | None:
        name = spelling(path)
        return None if name is None or _UNSPEAKABLE.search(name) else name

    return spell
