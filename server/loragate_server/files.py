"""Files and folders that are written whole or not at all, whoever else writes them; and locks."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows; what needs no lock works there
    fcntl = None  # type: ignore[assignment]


_LEFT_OVER_S = 3600.0
"""A partial file of this age was left by a writer that crashed."""


_ASK_AGAIN_S = 0.1
"""Between two looks at a lock that another process holds."""


def lock(file: int | IO[Any], *, shared: bool = False, wait: bool = False) -> None:
    """Locks an open file as a whole, until it is closed.

    Args:
        file: or its descriptor.
        shared: whether others may share the lock, which keeps out those alone that share none.
        wait: until whoever has it gives it back.

    Raises:
        BlockingIOError: another one has it, and nobody waits.
        OSError: the file system has no locks, or the operating system has none.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, "this operating system cannot lock files as a whole (flock)")
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in and below a folder, sorted, through links to other folders too.

    A link to a folder that it lies in leads nowhere new and is left out.
    """
    above: dict[Path, tuple[Path, ...]] = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        real, chain = here.resolve(), above.get(here.parent, ())
        if real in chain:
            folders.clear()
            continue
        above[here] = (*chain, real)
        folders.sort()
        yield from (here / name for name in sorted(names))


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where its file system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems have no such thing
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a name to write to; what was written takes the place of `path` when the block ends.

    An exception leaves `path` as it was.

    Raises:
        OSError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        _sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder that is made once: of two writers, the first one's stays.

    Raises:
        OSError: it cannot be written.
    """
    partial = _partial(path)
    try:
        yield partial
        for file in files_below(partial):
            _sync_file(file)
        for place, _, _ in os.walk(partial):
            sync_folder(Path(place))
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes and threads that ask for the same lock out of the block.

    It is there to save work that would be done twice: where a lock cannot be had at all, for the
    folder cannot be written or the file system has none, the block is entered without.

    Args:
        path: of an empty file, made when missing; it stays.
        waiting: called again and again until the lock is free. What it raises ends the wait.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:  # whoever writes there will say what is wrong with the folder
        yield
        return
    with file:
        while not _take(file.fileno()):
            waiting()
            time.sleep(_ASK_AGAIN_S)
        yield


@contextmanager
def at_most_one(path: Path) -> Iterator[bool]:
    """As `exclusive`, without waiting: tells whether the block is for this process and thread.

    The file goes away with the block. Who has opened it meanwhile may enter then beside one that
    makes a new file: what the block does has to be there for both to see before it ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:  # whoever writes there will say what is wrong with the folder
        yield True
        return
    with file:
        taken = _take(file.fileno())
        try:
            yield taken
        finally:
            if taken:
                path.unlink(missing_ok=True)


def _take(file: int) -> bool:
    """Whether nobody else has the lock, which is taken where there is one."""
    try:
        lock(file)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _partial(path: Path) -> Path:
    """A name of this writer alone: containers that share a folder have the same process numbers.

    Deletes what writers left behind that crashed.
    """
    for left_over in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left_over.lstat().st_mtime > _LEFT_OVER_S:
                if left_over.is_dir():
                    shutil.rmtree(left_over)
                else:
                    left_over.unlink()
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
