"""A prediction that is kept on disk: it takes a second, and every server would make it at start."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from loragate_server.files import whole_file

_METHOD = "1"
"""Part of every name, so that predictions of another way are not taken for those of this one."""


def kept_bytes(
    folder: Path, purpose: str, depends: tuple[str, ...], predict: Callable[[], int]
) -> int:
    """A predicted number of bytes, from the file that says it or else made, and kept.

    Nothing is lost with the file, and one that says no number is written anew. Where none can be
    written, the prediction is made again by the next server.

    Args:
        folder: several servers may share it; created when missing.
        purpose: the first part of the file's name.
        depends: all that the prediction follows from, but the version of torch.
        predict: makes it.
    """
    key = hashlib.sha256("\0".join((_METHOD, torch.__version__, *depends)).encode()).hexdigest()
    path = folder / f"{purpose}-{key[:32]}.txt"
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text("ascii"))
    made = predict()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(str(made), "ascii")
    return made
