"""`library.yaml`: the list of concepts, validated field by field."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from loragate_server.concepts.concept import MAX_PICTURES, Role
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.severity import Severity

FILE_NAME = "library.yaml"
MIN_NEUTRAL = 8
"""Fewer neutral concepts give no spread that a score could be measured in."""
ConceptId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
# Control characters break log lines and file names, and one of them does not survive YAML.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Name = Annotated[Line, Field(max_length=200)]
LanguageTag = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]
HandName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


_COUNT = Field(min_length=1, max_length=MAX_PICTURES)


class ConceptEntry(BaseModel):
    """One concept as it stands in the manifest.

    Attributes:
        pictures: reference pictures that nobody has sorted; they count as one hand.
        hands: reference pictures by who made them, or where: an artist, a shoot, a source. An
            adapter seldom learned from the very pictures that a library holds, and what several
            hands have in common is the concept.
        names: what it is called in other languages, by their tags; for people alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ConceptId
    name: Name
    category: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    severity: Severity
    role: Role
    prompts: tuple[Annotated[Line, Field(max_length=500)], ...] = ()
    pictures: Annotated[tuple[Line, ...], _COUNT] | None = None
    hands: dict[HandName, Annotated[tuple[Line, ...], Field(min_length=1)]] | None = None
    names: Annotated[dict[LanguageTag, Name], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _pictured(self) -> ConceptEntry:
        if (self.pictures is None) == (self.hands is None):
            raise ValueError("give either pictures, or hands with the pictures of each")
        if not 1 <= len(self.files) <= MAX_PICTURES:
            raise ValueError(f"{len(self.files)} pictures; 1 to {MAX_PICTURES} are possible")
        for name, _ in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"picture {name!r} is not inside the library's folder")
        return self

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Every picture with its hand, or an empty name; hands take turns.

        Probes use the first so many pictures, which so are of as many hands as there are.
        """
        if self.hands is None:
            return tuple((name, "") for name in self.pictures or ())
        return tuple(_in_turns(self.hands))


def _in_turns(hands: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    rows = [[(name, hand) for name in names] for hand, names in hands.items()]
    return (each for each in chain.from_iterable(zip_longest(*rows)) if each is not None)


class Manifest(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    concepts: tuple[ConceptEntry, ...]

    @field_validator("concepts")
    @classmethod
    def _unique(cls, entries: tuple[ConceptEntry, ...]) -> tuple[ConceptEntry, ...]:
        seen: set[str] = set()
        for entry in entries:
            if entry.id in seen:
                raise ValueError(f"concept id {entry.id!r} stands there twice")
            seen.add(entry.id)
        return entries


def read_manifest(folder: Path) -> Manifest:
    """Reads `folder/library.yaml`.

    Raises:
        NoDecisionError: LIBRARY_EMPTY when there is no usable manifest.
    """
    path = folder / FILE_NAME
    try:
        return Manifest.model_validate(YAML(typ="safe", pure=True).load(path.read_text("utf-8")))
    except OSError as error:
        fault = f"{FILE_NAME}: {error.strerror}"
    except ValidationError as error:
        fault = "; ".join(_fault(each) for each in error.errors(include_url=False)[:3])
    except (UnicodeDecodeError, YAMLError) as error:
        fault = f"{FILE_NAME}: {' '.join(str(error).split())}"
    raise NoDecisionError(
        ErrorReason.LIBRARY_EMPTY,
        f"The concept library {folder} cannot be read: {fault}.",
        remedy="Correct it, make one with `loragate-server concepts init FOLDER`, or name none for "
        "the embedded library.",
    )


def _fault(details: ErrorDetails) -> str:
    """One finding as `library.yaml: concepts.0.id: what is wrong`."""
    place = ".".join(str(part) for part in details["loc"])
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] in _FAULTS:
        message = _FAULTS[details["type"]]
    return f"{FILE_NAME}: {place}: {message}" if place else f"{FILE_NAME}: {message}"


_FAULTS = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "tuple_type": "has to be a list",
    "dict_type": "has to be a mapping",
    "model_type": "has to be a mapping with `version: 1` and `concepts:`",
    "string_pattern_mismatch": "is empty or has characters that are not allowed here",
}


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as YAML, in the order in which it was given."""
    stream = io.BytesIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(manifest.model_dump(mode="json", exclude_none=True), stream)
    return stream.getvalue()


def lacking_of(roles: Sequence[str]) -> str:
    """What concepts of these roles lack to decide anything; empty where that is nothing."""
    needs = (
        (1 - roles.count("forbidden"), "forbidden"),
        (MIN_NEUTRAL - roles.count("neutral"), "neutral"),
    )
    return " and ".join(f"{count} {role}" for count, role in needs if count > 0)


def incomplete(folder: Path, roles: Sequence[str]) -> NoDecisionError:
    """The error for a library that can decide nothing yet."""
    return NoDecisionError(
        ErrorReason.LIBRARY_EMPTY,
        f"The concept library {folder} has {roles.count('forbidden')} forbidden and "
        f"{roles.count('neutral')} neutral concepts, and so lacks {lacking_of(roles)}.",
        remedy="Add them with `loragate-server concepts add`, neutral ones with `--role neutral`.",
    )
