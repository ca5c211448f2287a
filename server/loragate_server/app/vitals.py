"""What every part needs of the machine, for readiness."""

from __future__ import annotations

import os

SPARE_DESCRIPTORS = 16
"""A question needs a connection, a stored file, the log and connections to the database at once."""


def require_descriptors(spare: int = SPARE_DESCRIPTORS) -> None:
    """Opens so many files more and closes them again.

    Raises:
        RuntimeError: the process, or the machine, has no more descriptors.
    """
    opened: list[int] = []
    try:
        for _ in range(spare):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RuntimeError(
            f"only {len(opened)} more files can be opened ({error.strerror}); raise the limit of "
            "open files (LimitNOFILE, ulimit -n)"
        ) from error
    finally:
        for one in opened:
            os.close(one)
