"""Manifests: what somebody else lists, in JSON Lines or Parquet, one row a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from loragate_server import strict_json
from loragate_server.adapter.reference import is_sha256
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.versions import place_of, state_beside, state_of, state_within

_LOCATIONS = ("path", "uri")

_MOST_METADATA = 64 << 10
"""Letters of what a manifest says about one file beside its place and digest."""

_MOST_LINE = 1 << 20
"""Letters of a line: a file without line ends must not fill the memory."""


class SourceError(Exception):
    """A source cannot be listed; the text says why and what can be done."""


def in_lines(path: Path) -> Iterator[Entry]:
    """The entries of JSON Lines.

    Raises:
        SourceError: it cannot be read, or a row is none.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(_MOST_LINE + 1):
                number += 1
                if len(line) > _MOST_LINE:
                    raise _fault(path, number, f"is longer than {_MOST_LINE} letters")
                if line.strip():
                    try:
                        value = strict_json.read(line)
                    except strict_json.DoubledNameError as error:
                        raise _fault(path, number, f"has the name {error.name!r} twice") from error
                    except (ValueError, RecursionError) as error:
                        raise _fault(path, number, "is no JSON") from error
                    yield _entry(path, number, value)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error


def in_parquet(path: Path) -> Iterator[Entry]:
    """The entries of a Parquet file.

    Raises:
        SourceError: it cannot be read, or a row is none.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield _entry(path, number, row)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}.") from error


def _entry(path: Path, number: int, value: object) -> Entry:
    if not isinstance(value, Mapping):
        raise _fault(path, number, "is no object")
    given = [name for name in _LOCATIONS if value.get(name)]
    if len(given) != 1:
        raise _fault(path, number, "must have exactly one of path and uri")
    location = value[given[0]]
    sha256 = value.get("sha256") or ""
    name = value.get("name") or ""
    if not (isinstance(location, str) and isinstance(sha256, str) and isinstance(name, str)):
        raise _fault(path, number, "has a path, uri, sha256 or name that is no text")
    if sha256 and not is_sha256(sha256.lower()):
        raise _fault(path, number, "has a sha256 that is not 64 hexadecimal digits")
    if place_of(location + name)[1]:
        raise _fault(path, number, "has a path, uri or name that is not Unicode")
    if given[0] == "uri" and "://" not in location:
        raise _fault(path, number, "has a uri without a scheme")
    version, changed_unix_s = "", 0.0
    if given[0] == "path":
        if "://" in location:
            raise _fault(path, number, "has an address as its path; call it uri")
        location = os.path.normpath(path.parent / location)
        version, changed_unix_s = _state(location)
    rest = {key: one for key, one in value.items() if key not in (*_LOCATIONS, "sha256", "name")}
    metadata = json.dumps(rest, default=str, sort_keys=True)
    if len(metadata) > _MOST_METADATA:
        raise _fault(path, number, f"has more than {_MOST_METADATA} letters of metadata")
    version = f"{version} {sha256}".strip()
    return Entry(location, version, sha256.lower(), name, metadata, changed_unix_s=changed_unix_s)


def _state(location: str) -> tuple[str, float]:
    """Of the file that a path names, or of what lies in the folder that it names."""
    within = state_within(location)
    return (
        state_of(location, state_beside(str(Path(location).parent))) if within is None else within
    )


def _fault(path: Path, number: int, what: str) -> SourceError:
    return SourceError(f"{path}, row {number} {what}.")
