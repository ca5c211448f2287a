"""Files inside the roots: no link is followed, nothing is waited for, everything is closed."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.beside import CONFIG_NAME, bad_config, decode_config
from loragate_server.intake.folder import choose

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 16

_FAULTS = {
    errno.ELOOP: "is a symbolic link",
    errno.ENOTDIR: "leads through a symbolic link or through what is no folder",
    errno.ENXIO: "is a socket or a device",
    errno.ENODEV: "is a device",
    errno.EACCES: "may not be read by the server",
    errno.EPERM: "may not be read by the server",
    errno.ENAMETOOLONG: "is too long",
    errno.EINVAL: "has letters that no file has there",
    errno.EILSEQ: "has letters that no file has there",
}
"""What is wrong with the path itself; every other error is a trouble of the machine."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_path(
    path: str, weight_name: str | None, settings: IntakeSection
) -> Iterator[tuple[BinaryIO, int, str | None]]:
    """Opens the weights that a path names, and reads the configuration beside them.

    A path to the weights and a path to their folder give the same: loaders that are given either
    find the configuration.

    Yields:
        The open weights, their size, and the text of `adapter_config.json` or None.

    Raises:
        NoDecisionError: PATH_NOT_ALLOWED, SOURCE_NOT_FOUND, SOURCE_UNREADABLE, or
            ADAPTER_METADATA_INVALID for a configuration that is there and cannot be read.
    """
    with ExitStack() as stack:
        folder, found = _find(path, settings)
        stack.callback(os.close, folder)
        stack.callback(os.close, found)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            require_encodable(weight_name or "")
            folder, name = found, choose(found, weight_name, path)
            found = _open(name, folder, path)
            stack.callback(os.close, found)
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise not_allowed(path, f"is {_kind(status.st_mode)} and no regular file")
        config = _config_in(folder, settings)
        with os.fdopen(found, "rb", closefd=False) as file:
            yield file, status.st_size, config


def _find(path: str, settings: IntakeSection) -> tuple[int, int]:
    """The folder that a path lies in and what it names, both open, from the first root with it."""
    missing: NoDecisionError | None = None
    for root, parts in _places(path, settings):
        try:
            return _walk(root, parts, path)
        except NoDecisionError as error:
            if error.reason is not ErrorReason.SOURCE_NOT_FOUND:
                raise
            missing = missing or error
    raise missing or not_allowed(path, "is not inside a configured root")


def _places(path: str, settings: IntakeSection) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every root that a path may lie in, and the way from there."""
    given = PurePosixPath(path)
    if ".." in given.parts:
        raise not_allowed(path, "climbs out of its folder")
    require_encodable(path)
    for root in settings.folders:
        if not given.is_absolute():
            yield root, given.parts
            continue
        for base in dict.fromkeys((str(root), os.path.realpath(root))):
            if given.is_relative_to(base):
                yield root, given.relative_to(base).parts
                break


def _walk(root: Path, parts: tuple[str, ...], path: str) -> tuple[int, int]:
    """Opens component by component, never through a symbolic link."""
    folder = _open_root(root)
    try:
        for part in parts[:-1]:
            inner = _open(part, folder, path, _STEP)
            os.close(folder)
            folder = inner
        return folder, _open(parts[-1] if parts else ".", folder, path)
    except BaseException:
        os.close(folder)
        raise


def _open_root(root: Path) -> int:
    """A root itself may be a link: the operator named it."""
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoDecisionError(
            ErrorReason.SOURCE_NOT_FOUND,
            f"The root {str(root)!r} of this server cannot be opened ({error.strerror}).",
            remedy="Mount or make the folder on the server, or take it out of intake.roots.",
            metadata={"path": str(root)[:500]},
        ) from error


def _open(name: str, folder: int, path: str, flags: int = _READ) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise not_found(path) from error
    except OSError as error:
        if (fault := _FAULTS.get(error.errno or 0)) is not None:
            raise not_allowed(path, fault) from error
        raise unreadable(f"Path {path[:500]!r}", error) from error


def _config_in(folder: int, settings: IntakeSection) -> str | None:
    """The configuration in a folder; None only where there is nothing of its name."""
    try:
        descriptor = os.open(CONFIG_NAME, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if (fault := _FAULTS.get(error.errno or 0)) is not None:
            raise bad_config(fault) from error
        raise unreadable(f"The {CONFIG_NAME} beside the weights", error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise bad_config(f"is {_kind(status.st_mode)} and no regular file")
        data = _read_most(descriptor, settings.max_metadata_bytes + 1)
        after = os.fstat(descriptor)
    except OSError as error:
        raise unreadable(f"The {CONFIG_NAME} beside the weights", error) from error
    finally:
        os.close(descriptor)
    text = decode_config(data, settings.max_metadata_bytes)
    if (status.st_mtime_ns, len(data)) != (after.st_mtime_ns, after.st_size):
        raise bad_config("was changed while it was read")
    return text


def _read_most(descriptor: int, limit_bytes: int) -> bytes:
    """What an open file holds, and no more than the limit of a file that grows."""
    data = bytearray()
    while len(data) < limit_bytes:
        chunk = os.read(descriptor, min(_CHUNK_BYTES, limit_bytes - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _kind(mode: int) -> str:
    return next((name for holds, name in _KINDS if holds(mode)), "something else")


def require_encodable(name: str) -> None:
    """Refuses what no file can be named.

    Raises:
        NoDecisionError: PATH_NOT_ALLOWED.
    """
    if "\0" in name or (not name.isascii() and _LONE_SURROGATE.search(name)):
        raise not_allowed(ascii(name), "has letters that no file name has")


def not_allowed(path: str, fault: str) -> NoDecisionError:
    """PATH_NOT_ALLOWED, with what is wrong with the path."""
    return NoDecisionError(
        ErrorReason.PATH_NOT_ALLOWED,
        f"Path {path[:500]!r} {fault}.",
        remedy="Name a regular file inside one of the server's intake.roots, without links.",
        metadata={"path": path[:500]},
    )


def not_found(path: str) -> NoDecisionError:
    """SOURCE_NOT_FOUND."""
    return NoDecisionError(
        ErrorReason.SOURCE_NOT_FOUND,
        f"Nothing is at {path[:500]!r}.",
        remedy="Check the name.",
        metadata={"path": path[:500]},
    )


def unreadable(what: str, error: OSError) -> NoDecisionError:
    """SOURCE_UNREADABLE, for a trouble of the machine that may pass."""
    return NoDecisionError(
        ErrorReason.SOURCE_UNREADABLE,
        f"{what} could not be read ({error.strerror or type(error).__name__}).",
        remedy="Ask again; if it stays, look at the server's disk and its limit of open files.",
        retry_after_s=5.0,
    )
