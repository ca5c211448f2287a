"""`library.yaml`: the list of concepts, validated field by field."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from loragate_server.concepts.concept import Role
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.severity import Severity

FILE_NAME = "library.yaml"
ConceptId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
# Control characters break log lines and file names, and one of them does not survive YAML.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class ConceptEntry(BaseModel):
    """One concept as it stands in the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: ConceptId
    name: Annotated[Line, Field(max_length=200)]
    category: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    severity: Severity
    role: Role
    prompts: tuple[Annotated[Line, Field(max_length=500)], ...] = ()
    pictures: Annotated[tuple[Line, ...], Field(min_length=1, max_length=64)]

    @field_validator("pictures")
    @classmethod
    def _inside(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"picture {name!r} is not inside the library's folder")
        return names


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
    except (OSError, UnicodeDecodeError, YAMLError, ValidationError) as error:
        raise NoDecisionError(
            ErrorReason.LIBRARY_EMPTY,
            f"The concept library {folder} cannot be read: {error}",
            remedy="Give a folder with a valid library.yaml, or none for the embedded library.",
        ) from error


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as YAML, in the order in which it was given."""
    stream = io.BytesIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(manifest.model_dump(mode="json"), stream)
    return stream.getvalue()
