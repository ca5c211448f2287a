"""What a source lists: a folder, an address of fsspec, or a manifest in Parquet or JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from loragate_server.adapter.reference import is_sha256
from loragate_server.catalogue.entry import Entry
from loragate_server.config.intake import IntakeSection

WEIGHTS = ".safetensors"
MANIFESTS = (".parquet", ".jsonl", ".ndjson")
LISTED = frozenset({"s3", "hf"})
"""Kinds of address that can be listed and that intake can read."""

_LOCATIONS = ("path", "uri")
_MOST_METADATA = 64 << 10
"""Letters of what a manifest says about one file beside its place and digest."""


class SourceError(Exception):
    """A source cannot be listed; the text says why and what can be done."""


@dataclass(frozen=True)
class Source:
    """What is listed, and what reading it needs.

    Attributes:
        text: as it was named, absolute where it is a path.
        entries: reads the listing anew, in its order.
        roots: folders that its files may lie in, beside those of the configuration.
        schemes: kinds of address that its files may have, beside those of the configuration.
    """

    text: str
    entries: Callable[[], Iterator[Entry]] = field(compare=False)
    roots: tuple[Path, ...] = ()
    schemes: frozenset[str] = frozenset()

    def settings(self, given: IntakeSection) -> IntakeSection:
        """The section of the configuration, opened for what was named on the command line."""
        opened = {
            **given.model_dump(),
            "roots": (*given.roots, *self.roots),
            "enabled_schemes": given.enabled_schemes | self.schemes,
        }
        return IntakeSection(**opened)


def open_source(text: str) -> Source:
    """The source of this name.

    Raises:
        SourceError: there is none, or it is of a kind that cannot be listed.
    """
    if "://" in text:
        return _address(text)
    path = Path(text).expanduser()
    try:
        path = path.resolve(strict=True)
    except OSError as error:
        raise SourceError(f"{text} cannot be listed: {error.strerror}.") from error
    if path.is_dir():
        return Source(str(path), lambda: _in_folder(path), (path,))
    if path.suffix == ".parquet":
        return Source(str(path), lambda: _in_parquet(path), (path.parent,))
    if path.suffix in MANIFESTS:
        return Source(str(path), lambda: _in_lines(path), (path.parent,))
    raise SourceError(
        f"{text} is neither a folder, nor an address like s3://bucket/loras, nor a manifest "
        f"({', '.join(MANIFESTS)})."
    )


def _in_folder(folder: Path) -> Iterator[Entry]:
    """Sorted folder by folder, so that no more than one has to be in memory."""

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            if name.endswith(WEIGHTS):
                location = str(Path(here, name))
                version, changed_unix_s = _state(location)
                yield Entry(location, version, changed_unix_s=changed_unix_s)


def _address(text: str) -> Source:
    scheme = urlsplit(text).scheme.lower()
    if scheme not in LISTED:
        raise SourceError(
            f"Addresses of the kind {scheme!r} cannot be listed: use a folder, "
            f"{' or '.join(sorted(f'{each}://' for each in LISTED))}, or a manifest with addresses."
        )

    def entries() -> Iterator[Entry]:
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(text)
            for name, about in sorted(files.find(root, detail=True).items()):
                if name.endswith(WEIGHTS):
                    told = (about.get(key) for key in ("size", "ETag", "LastModified", "sha256"))
                    yield Entry(f"{scheme}://{name}", " ".join(map(str, filter(None, told))))
        except ImportError as error:
            raise SourceError(
                f"{scheme}:// needs a package: pip install 'loragate-server[{scheme}]'"
            ) from error
        except Exception as error:  # whose text may hold credentials
            raise SourceError(
                f"{text} cannot be listed ({type(error).__name__}): check that it exists and that "
                "this machine may read it."
            ) from None

    return Source(text, entries, schemes=frozenset({scheme}))


def _in_lines(path: Path) -> Iterator[Entry]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise _fault(path, number, "is no JSON") from error
                    yield _entry(path, number, value)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error


def _in_parquet(path: Path) -> Iterator[Entry]:
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
    return Entry(location, version, sha256.lower(), name, metadata, changed_unix_s)


def _state(path: str) -> tuple[str, float]:
    """Version and last change of a local file; of none if it is not there, as the reader tells."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return "", 0.0
    return f"{status.st_size} {status.st_mtime_ns}", status.st_mtime


def _fault(path: Path, number: int, what: str) -> SourceError:
    return SourceError(f"{path}, row {number} {what}.")
