"""What an extractor found, with the spots in the body where other references can be put."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.reading.forms import Field
from loragate_server.intercept.reading.json_spans import replace_strings
from loragate_server.intercept.refusals import Location

Spelling = Callable[[str], str | None]
"""How a server is told of a file: from its path to the text; None where it cannot be told."""


def as_path(path: str) -> str | None:
    """The path itself, for servers that take one."""
    return path


def below(folder: str) -> Spelling:
    """The name below a folder, for servers that look nowhere else."""

    def spell(path: str) -> str | None:
        name = os.path.relpath(path, folder)
        return None if name.startswith("..") else name

    return spell


@dataclass(frozen=True)
class Spot:
    """Where a reference stands in the body.

    Attributes:
        location: of the string in the JSON document; empty when the whole field is the reference.
        within: the part of the string that is the reference; None for all of it.
        form_field: the field that holds the document; None when the body is the document.
        text: the string at `location`.
        spelling: how this server is told of a file.
    """

    location: Location
    text: str
    within: tuple[int, int] | None = None
    form_field: str | None = None
    spelling: Spelling = field(default=as_path, compare=False)


@dataclass(frozen=True)
class Found:
    """One adapter of a request.

    Attributes:
        spot: where the body names it; None where the body cannot name another file.
        twins: where else the request names the same adapter.
        holder: what names it, where its place says too little: the class of a node.
    """

    reference: AdapterReference
    place: str
    spot: Spot | None = None
    twins: tuple[Spot | None, ...] = ()
    holder: str = ""


@dataclass(frozen=True)
class Findings:
    """All adapters of a request and the body that they were found in.

    Attributes:
        text: of a JSON body, content coding undone.
        form: the fields of a multipart body, by their spans.
        base_model: the model that the request is for, where it says so.
        unlisted: as in `Extraction`.
        edit: puts other texts into a body that is neither JSON nor a form.
    """

    found: tuple[Found, ...] = ()
    text: str = ""
    form: tuple[Field, ...] = ()
    base_model: str = ""
    unlisted: str = ""
    edit: Callable[[Mapping[Location, str]], bytes] | None = None


def rewritten(findings: Findings, body: bytes, paths: Mapping[int, str]) -> bytes | None:
    """The plain body with some adapters replaced by files; None where that cannot be said.

    Raises:
        IndexError: a number is not that of an adapter.
    """
    spelled: dict[Spot, str] = {}
    for number, path in paths.items():
        found = findings.found[number]
        for spot in (found.spot, *found.twins):
            name = spot.spelling(path) if spot else None
            if spot is None or name is None or spelled.setdefault(spot, name) != name:
                return None
    edits: dict[str | None, dict[Location, list[tuple[Spot, str]]]] = {}
    for spot, name in spelled.items():
        edits.setdefault(spot.form_field, {}).setdefault(spot.location, []).append((spot, name))
    if findings.edit is not None:
        return findings.edit({at: _spliced(parts) for at, parts in edits.get(None, {}).items()})
    if None in edits:
        return _edited(findings.text, edits[None]).encode()
    return _in_form(findings.form, body, edits)


def _edited(text: str, edits: Mapping[Location, Sequence[tuple[Spot, str]]]) -> str:
    values = {location: _spliced(parts) for location, parts in edits.items()}
    return values[()] if () in values else replace_strings(text, values)


def _spliced(parts: Sequence[tuple[Spot, str]]) -> str:
    """One string with all its references replaced, from the last to the first."""
    text = parts[0][0].text
    for spot, spelled in sorted(parts, key=lambda part: part[0].within or (0, 0), reverse=True):
        begin, end = spot.within or (0, len(text))
        text = text[:begin] + spelled + text[end:]
    return text


def _in_form(
    form: Sequence[Field],
    body: bytes,
    edits: Mapping[str | None, Mapping[Location, Sequence[tuple[Spot, str]]]],
) -> bytes | None:
    spans = {one.name: one for one in form if one.file_name is None}
    for name in sorted(edits, key=lambda name: spans[name or ""].span or (0, 0), reverse=True):
        holder = spans[name or ""]
        if holder.span is None:
            return None
        begin, end = holder.span
        body = body[:begin] + _edited(holder.text, edits[name]).encode() + body[end:]
    return body
