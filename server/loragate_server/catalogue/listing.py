"""What a source lists: a folder, an address of fsspec, or a manifest in Parquet or JSON Lines.

What cannot be looked into is listed with its fault, so that nothing is left out without a word and
one bad folder or name does not keep all others from being audited.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.manifest import SourceError, in_lines, in_parquet
from loragate_server.catalogue.versions import place_of, state_beside, state_of
from loragate_server.config.intake import IntakeSection
from loragate_server.intake.beside import CONFIG_NAME

WEIGHTS = (".safetensors", ".sft")
MANIFESTS = (".parquet", ".jsonl", ".ndjson")
LISTED = frozenset({"s3", "hf"})
"""Kinds of address that can be listed and that intake can read."""

__all__ = ["LISTED", "MANIFESTS", "Source", "SourceError", "open_source"]


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
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise SourceError(f"{text} cannot be listed: {why}.") from error
    if path.is_dir():
        return Source(str(path), lambda: _in_folder(path), (path,))
    if path.suffix == ".parquet":
        return Source(str(path), lambda: in_parquet(path), (path.parent,))
    if path.suffix in MANIFESTS:
        return Source(str(path), lambda: in_lines(path), (path.parent,))
    raise SourceError(
        f"{text} is neither a folder, nor an address like s3://bucket/loras, nor a manifest "
        f"({', '.join(MANIFESTS)})."
    )


def _in_folder(folder: Path) -> Iterator[Entry]:
    """Sorted folder by folder, so that no more than one has to be in memory."""
    unreadable: list[OSError] = []
    for here, folders, names in _walk(str(folder), unreadable.append):
        beside = state_beside(here)
        for name in names:
            if name.lower().endswith(WEIGHTS):
                path = str(Path(here, name))
                location, fault = place_of(path)
                version, changed_unix_s = state_of(path, beside)
                yield Entry(location, version, fault=fault, changed_unix_s=changed_unix_s)
        for name in folders:
            path = str(Path(here, name))
            if os.path.islink(path):  # noqa: PTH114 - unlike Path's, of any path at all
                yield Entry(
                    place_of(path)[0],
                    state_of(path)[0],
                    fault="It is a symbolic link to a folder, which is not followed.",
                )
    for error in unreadable:
        if Path(error.filename) == folder:
            raise SourceError(f"{folder} cannot be listed: {error.strerror}.") from error
        if not isinstance(error, FileNotFoundError):  # else it was removed in between
            yield Entry(
                place_of(error.filename)[0],
                state_of(error.filename)[0],
                fault=f"The folder cannot be listed: {error.strerror}.",
            )


def _walk(
    folder: str, failed: Callable[[OSError], None]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, sorted. That of Python 3.11 calls itself, and ends a thousand folders down."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(here) as found:
                for one in found:
                    (folders if _is_folder(one) else names).append(one.name)
        except OSError as error:
            failed(error)
            continue
        folders.sort()
        yield here, folders, sorted(names)
        paths = (os.path.join(here, name) for name in reversed(folders))  # noqa: PTH118
        waiting += [path for path in paths if not os.path.islink(path)]  # noqa: PTH114


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:  # a link that leads nowhere, or in a circle
        return False


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
            # Filesystems of fsspec remember listings, and whoever follows a source looks again.
            files.invalidate_cache()
            found = files.find(root, detail=True)
        except ImportError as error:
            raise SourceError(
                f"{scheme}:// needs a package: pip install 'loragate-server[{scheme}]'"
            ) from error
        except Exception as error:  # whose text may hold credentials
            raise SourceError(
                f"{text} cannot be listed ({type(error).__name__}): check that it exists and that "
                "this machine may read it."
            ) from None
        for name in sorted(one for one in found if one.lower().endswith(WEIGHTS)):
            folder = name.rpartition("/")[0]
            version = _tag(found[name])
            if beside := found.get(f"{folder}/{CONFIG_NAME}"):
                version = f"{version} beside {_tag(beside)}"
            location, fault = place_of(f"{scheme}://{name.lstrip('/')}")
            yield Entry(location, version, fault=fault)

    return Source(text, entries, schemes=frozenset({scheme}))


def _tag(about: dict[str, object]) -> str:
    """What a store says that changes with a file."""
    told = (about.get(key) for key in ("size", "ETag", "LastModified", "sha256", "blob_id"))
    return " ".join(map(str, filter(None, told)))
