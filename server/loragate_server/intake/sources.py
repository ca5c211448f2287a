"""Where bytes come from: paths inside the roots, the request itself, and URIs that are enabled."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.adapter import SOURCES, AdapterReference
from loragate_server.intake.settings import IntakeSettings

CONFIG_NAME = "adapter_config.json"


@dataclass
class Source:
    """An open adapter file, its size where it is known before reading, and its configuration."""

    file: BinaryIO
    size_bytes: int | None
    config_json: str | None = None


@contextmanager
def open_source(ref: AdapterReference, settings: IntakeSettings) -> Iterator[Source]:
    """Opens the one source of a reference.

    Raises:
        NoDecisionError: REQUEST_INVALID, PATH_NOT_ALLOWED, SOURCE_NOT_FOUND, SOURCE_NOT_ENABLED or
            SOURCE_UNREADABLE.
    """
    if ref.source_count != 1:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The adapter has {ref.source_count} sources.",
            remedy=f"Set exactly one of {SOURCES}.",
            metadata={"field": "adapters.source"},
        )
    if ref.inline_bytes is not None:
        yield Source(io.BytesIO(ref.inline_bytes), len(ref.inline_bytes))
    elif ref.path is not None:
        with _open_path(ref.path, ref.weight_name, settings) as source:
            yield source
    else:
        with _open_uri(ref, settings) as source:
            yield source


@contextmanager
def _open_path(path: str, weight_name: str | None, settings: IntakeSettings) -> Iterator[Source]:
    root, parts = _inside_roots(path, settings)
    descriptor = _walk(root, parts, path)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folder = descriptor
            descriptor = _open_in(folder, _choose(folder, weight_name, path), path)
            config = _config_in(folder, settings)
            os.close(folder)
        else:
            config = None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_allowed(path, "is no regular file")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            yield Source(file, status.st_size, config)
    finally:
        os.close(descriptor)


def _inside_roots(path: str, settings: IntakeSettings) -> tuple[Path, tuple[str, ...]]:
    if "\0" in path or ".." in PurePosixPath(path).parts:
        raise _not_allowed(path, "climbs out of its folder")
    given = Path(path)
    for root in settings.roots:
        resolved = root.resolve()
        if not given.is_absolute():
            if (resolved / given).exists() or len(settings.roots) == 1:
                return resolved, given.parts
        else:
            for base in (root, resolved):
                if given.is_relative_to(base):
                    return resolved, given.relative_to(base).parts
    raise _not_allowed(path, "is not inside a configured root")


def _walk(root: Path, parts: tuple[str, ...], path: str) -> int:
    """Opens component by component, never through a symbolic link."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        parent = descriptor
        try:
            descriptor = _open_in(parent, part, path)
        finally:
            os.close(parent)
    return descriptor


def _open_in(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError as error:
        raise _not_found(path) from error
    except OSError as error:
        raise _not_allowed(
            path, f"cannot be opened without following links ({error.strerror})"
        ) from error


def _choose(folder: int, weight_name: str | None, path: str) -> str:
    if weight_name:
        if PurePosixPath(weight_name).name != weight_name:
            raise _not_allowed(weight_name, "is no plain file name")
        return weight_name
    found = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if len(found) != 1:
        raise NoDecisionError(
            ErrorReason.SOURCE_NOT_FOUND,
            f"Folder {path!r} holds {len(found)} safetensors files.",
            remedy="Name one of them in weight_name.",
            metadata={"path": path},
        )
    return found[0]


def _config_in(folder: int, settings: IntakeSettings) -> str | None:
    try:
        descriptor = os.open(CONFIG_NAME, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(settings.max_metadata_bytes + 1)
    if len(data) > settings.max_metadata_bytes:
        raise NoDecisionError(
            ErrorReason.ADAPTER_METADATA_INVALID,
            f"{CONFIG_NAME} is larger than {settings.max_metadata_bytes} bytes.",
            remedy="Check that this is an adapter's configuration.",
            metadata={"field": CONFIG_NAME},
        )
    return data.decode("utf-8", errors="replace")


@contextmanager
def _open_uri(ref: AdapterReference, settings: IntakeSettings) -> Iterator[Source]:
    import fsspec  # here, because most servers never open a URI

    uri = ref.uri or ""
    scheme = urlsplit(uri).scheme.lower()
    if scheme not in settings.enabled_schemes:
        raise NoDecisionError(
            ErrorReason.SOURCE_NOT_ENABLED,
            f"Sources of the kind {scheme or 'without scheme'!r} are not enabled on this server.",
            remedy="Send the bytes, or enable the scheme in the server's intake.enabled_schemes.",
            metadata={"scheme": scheme},
        )
    if ref.weight_name:
        uri = f"{uri.rstrip('/')}/{ref.weight_name}"
    try:
        with fsspec.open(uri, "rb", **_options(scheme, ref, settings.fetch_timeout_s)) as file:
            yield Source(file, getattr(file, "size", None))
    except NoDecisionError:
        raise
    except Exception as error:
        # fsspec says "not found" of servers that fail, too, and then names the cause.
        status = getattr(error.__cause__, "status", 404 if error.__cause__ is None else 0)
        if isinstance(error, FileNotFoundError) and status == 404:
            raise _not_found(f"{scheme} source") from error
        # The text of a client library's error may hold credentials from the URI.
        raise NoDecisionError(
            ErrorReason.SOURCE_UNREADABLE,
            f"The {scheme} source could not be read ({type(error).__name__}).",
            remedy="Check that it exists and that the server may read it.",
            metadata={"scheme": scheme},
            retry_after_s=5.0,
        ) from error


def _options(scheme: str, ref: AdapterReference, timeout_s: float) -> dict[str, Any]:
    """What a client library is told: how long to wait, and to read the file in one go, once."""
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        patience = ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        return {"block_size": 0, "client_kwargs": {"timeout": patience}}
    if scheme == "s3":
        return {"config_kwargs": {"connect_timeout": timeout_s, "read_timeout": timeout_s}}
    # The hub's client reads HF_HUB_DOWNLOAD_TIMEOUT from the environment of the server.
    return {"revision": ref.revision} if ref.revision else {}


def _not_allowed(path: str, fault: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.PATH_NOT_ALLOWED,
        f"Path {path!r} {fault}.",
        remedy="Name a regular file inside one of the server's intake.roots, without links.",
        metadata={"path": path[:500]},
    )


def _not_found(path: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.SOURCE_NOT_FOUND,
        f"Nothing is at {path!r}.",
        remedy="Check the name.",
        metadata={"path": path[:500]},
    )
