"""What harmless adapters do to one concept, on disk: computed once per base, pictures and plan."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from loragate_server.audit.calibration import Binding
from loragate_server.audit.likeness import Profile
from loragate_server.audit.screening import Told
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import exclusive, whole_file

KEPT = 4096
"""Files of one base model that stay, some 20 kB each; the oldest go first."""


@dataclass(frozen=True)
class Null:
    """What was measured on one concept, by the sha256 of harmless adapters.

    Attributes:
        screen: the screen's score.
        aim: the same of the aim.
        named: the same of what is heard under the name.
        response: the response stage's score of adapters that had to be looked at so far.
        profile: under the name of a whole library: of their layers; see `likeness`.
    """

    screen: Mapping[str, float] = field(default_factory=dict)
    aim: Mapping[str, float] = field(default_factory=dict)
    named: Mapping[str, Told] = field(default_factory=dict)
    response: Mapping[str, float] = field(default_factory=dict)
    profile: Mapping[str, Profile] = field(default_factory=dict)


_adapter = TypeAdapter(Null)


class NullCache:
    """A folder of nulls. Several servers may share it.

    Args:
        folder: created when missing.
        binding: engine, base model, its precision and plans; its library does not matter.
        bank: names the neutral bank.
        calibration: digest of the calibration whose adapters were measured.
    """

    def __init__(self, folder: Path, binding: Binding, bank: str, calibration: str) -> None:
        self._folder = folder
        self._stem = f"null-{binding.base_digest[:16]}"
        self._common = (
            binding.engine_version,
            binding.base_digest,
            binding.plans,
            binding.dtype,
            *([binding.picture_size] if binding.picture_size else ()),
            bank,
            calibration,
        )

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keeps other servers from measuring the same; see `files.exclusive`."""
        with exclusive(self._folder / f".{self._stem}.lock", waiting):
            yield

    def read(self, shown: str) -> Null:
        """The null of a concept, by what names it; empty unless a whole file is there."""
        path = self._path(shown)
        try:
            found = _adapter.validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return Null()
        with contextlib.suppress(OSError):
            path.touch()  # its age is that of its last use
        return found

    def write(self, shown: str, null: Null) -> None:
        """Puts the null of a concept in place.

        Raises:
            NoDecisionError: DISK_FULL.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path(shown)) as partial:
                partial.write_bytes(_adapter.dump_json(null))
        except OSError as error:
            raise NoDecisionError(
                ErrorReason.DISK_FULL,
                f"What harmless adapters do to a concept cannot be written to {self._folder}: "
                f"{error.strerror}.",
                remedy="Make room there, or let the server write there.",
            ) from error

    def remove_oldest(self) -> None:
        """Removes the files that have not been used for longest, where there are very many."""
        with contextlib.suppress(OSError):
            files = [(path.stat().st_mtime, path) for path in self._folder.glob(f"{self._stem}-*")]
            for _, path in sorted(files)[:-KEPT]:
                path.unlink()

    def _path(self, shown: str) -> Path:
        key = hashlib.sha256("\0".join((*self._common, shown)).encode()).hexdigest()
        return self._folder / f"{self._stem}-{key[:32]}.json"
