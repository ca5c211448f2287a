"""Keeps signed verdicts as files, for those who check them elsewhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loragate.results import AuditResult


class SignedPlace:
    """Where `--save-signed` keeps verdicts: a file for one, a folder for any number.

    Args:
        place: what the option says; None keeps nothing.
        several: whether there may be more than one verdict.

    Raises:
        ValueError: it cannot be written to, or is a file and there may be several.
    """

    def __init__(self, place: str | None, *, several: bool) -> None:
        self._folder: Path | None = None
        self._file: Path | None = None
        if place is None:
            return
        path = Path(place)
        if path.is_dir() or place.endswith(os.sep):
            self._folder = path
        elif several:
            raise ValueError(
                f"--save-signed {place} is no folder, and there is a verdict for each file. Name a "
                "folder that exists."
            )
        else:
            self._file = path
        beside = self._folder or path.absolute().parent
        if not (beside.is_dir() and os.access(beside, os.W_OK | os.X_OK)):
            raise ValueError(
                f"--save-signed cannot write to {beside}. Name a folder that exists and that you "
                "may write to."
            )

    def keep(self, result: AuditResult) -> None:
        """Writes the signed form of a verdict, whole or not at all.

        Raises:
            ValueError: the service has not signed it.
            OSError: it cannot be written.
        """
        if self._folder is None and self._file is None:
            return
        if not result.signed:
            raise ValueError(
                f"The decision {result.decision_id} is not signed, so --save-signed has nothing to "
                "keep. Set signing.keys of the service, and ask again."
            )
        path = self._file
        if path is None and self._folder is not None:
            path = self._folder / f"{_safe(result.decision_id)}.json"
        assert path is not None  # noqa: S101 (one of the two is there)
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, delete=False) as file:
            file.write(result.signed)
        try:
            Path(file.name).chmod(0o644)  # it is for others
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


def _safe(decision_id: str) -> str:
    """The id as the name of a file.

    Raises:
        ValueError: it would lead elsewhere.
    """
    if not decision_id.isalnum():
        raise ValueError(f"The decision id {decision_id[:64]!r} cannot be the name of a file.")
    return decision_id
