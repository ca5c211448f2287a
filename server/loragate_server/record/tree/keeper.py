"""`CheckpointKeeper`: saves the tree of a log, signs its size and root, and hands them out.

It works on a thread of its own. No decision waits for it, unless `stop_after_s` is set and lines
have been in no checkpoint that everybody has taken for longer than that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from loragate_server.config.checkpoints import CheckpointsSection
from loragate_server.config.signing import SigningSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import whole_file
from loragate_server.record.chain import Link
from loragate_server.record.failures import RETRY_AFTER_S, log_failure
from loragate_server.record.log import DecisionLog, Wrote
from loragate_server.record.signing.keys import KeyUnusableError
from loragate_server.record.tree.catch_up import catch_up
from loragate_server.record.tree.copies import Copy, ExportError, Taker
from loragate_server.record.tree.merkle import range_hash
from loragate_server.record.tree.note import Note, NoteError, parse_note
from loragate_server.record.tree.signer import NoteSigner
from loragate_server.record.tree.submit import RemoteWitness
from loragate_server.record.tree.tiles import TileError, Tiles
from loragate_server.record.tree.tree import CHECKPOINT, LogTree, TreeError, TreeState
from loragate_server.record.tree.witness import HISTORY, append_history

OWN = "tree"
"""Label of the tree's own folder beside those who take checkpoints."""

_CLOSE_WAIT_S = 10.0
_log = logging.getLogger(__name__)


class CheckpointKeeper:
    """Keeps a tree and its checkpoints. Thread-safe."""

    def __init__(
        self,
        section: CheckpointsSection,
        signing: SigningSection,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens tree, keys and witnesses; `open_log` comes next, then `start`.

        Raises:
            KeyUnusableError: a key cannot be used.
            TreeError: the tree is damaged.
            OSError: it cannot be read.
        """
        self._section, self._clock = section, clock
        where, keys = "checkpoints.key", (section.key,) if section.key else signing.keys
        self._signer = NoteSigner(where if section.key else "signing.keys", keys)
        self.tree = LogTree(folder, section.name)
        witnesses = [RemoteWitness(one) for one in section.witnesses]
        self._takers: Sequence[Taker] = (*witnesses, *(Copy(url) for url in section.copies))
        self._taken = dict.fromkeys((OWN, *(one.label for one in self._takers)), 0)
        self._behind_since: dict[str, float] = {}
        self._ending = threading.Event()
        self._round = threading.Lock()
        self._thread: threading.Thread | None = None

    def open_log(
        self, path: Path, file_bytes: int = 0, also: Wrote = lambda _, __: None
    ) -> DecisionLog:
        """Opens the log of the tree, and gives the tree what it lacks of it.

        Args:
            path: of the file that is written.
            file_bytes: size from which on it is full; 0 for one file without end.
            also: told each line after the tree.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE or DISK_FULL; so it is for a log that does
                not hold what the tree has.
        """
        try:
            catch_up(self.tree, path)
        except TreeError as error:
            raise NoDecisionError(
                ErrorReason.DECISION_LOG_UNAVAILABLE,
                f"The decision log and its tree do not belong together: {error}.",
                remedy="Find out what became of the log before anything is decided on.",
                metadata={"file": path.name},
            ) from error
        except OSError as error:
            raise log_failure(error, path) from error

        def wrote(link: Link, line: bytes) -> None:
            self.tree.wrote(link, line)
            also(link, line)

        log = DecisionLog(path, begin=self.tree.last, wrote=wrote, file_bytes=file_bytes)
        if not self.tree.begun:
            try:
                log.append_note(self.tree.first_note())
            except BaseException:
                log.close()
                raise
        return log

    def start(self) -> None:
        """Makes checkpoints from now on."""
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Makes a last checkpoint, if the thread gets to it in time, and ends."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_WAIT_S)

    def make(self) -> dict[str, str]:
        """Makes a checkpoint and hands it out.

        Returns:
            Label to what went wrong there; empty where all is well.
        """
        with self._round:
            self._mark_behind()
            try:
                state = self.tree.save()
                if state.size == 0 or min(self._taken.values()) == state.size:
                    return {}
                note = self._signer.signed(state.checkpoint.text, state.origin)
            except (OSError, TreeError, KeyUnusableError) as error:
                return {OWN: str(error)}
            return self._hand_out(state, note)

    def _hand_out(self, state: TreeState, note: Note) -> dict[str, str]:
        problems, signed = {}, False
        for taker in self._takers:
            if self._taken[taker.label] == state.size and not signed:
                continue  # what has the checkpoint gets it again with another signature only
            try:
                given = taker.take(note, state.checkpoint, self.tree.consistency, self._root_at)
            except (ExportError, TileError, OSError) as error:
                problems[taker.label] = str(error)
            else:
                self._took(taker.label, state.size)
                note = replace(note, signatures=(*note.signatures, *given))
                signed = signed or bool(given)
        try:
            self._keep(note)
        except OSError as error:
            problems[OWN] = str(error)
        else:
            self._took(OWN, state.size)
        return problems

    def behind_s(self) -> Mapping[str, float]:
        """Label to the seconds since when lines have been in no checkpoint that was taken there."""
        self._mark_behind()
        now, since = self._clock(), dict(self._behind_since)
        return {label: max(0.0, now - since[label]) if label in since else 0.0
                for label in self._taken}  # fmt: skip

    def require_in_time(self) -> None:
        """Makes sure that `stop_after_s` is kept.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE; the checkpoint is overdue.
        """
        limit = self._section.stop_after_s
        if limit is None:
            return
        late = {label: seconds for label, seconds in self.behind_s().items() if seconds > limit}
        if late:
            raise NoDecisionError(
                ErrorReason.DECISION_LOG_UNAVAILABLE,
                f"The log has lines that are in no checkpoint for more than {limit:g} s at "
                f"{', '.join(sorted(late))}.",
                remedy="The operator has to bring back who takes checkpoints; the log says more.",
                retry_after_s=RETRY_AFTER_S,
            )

    def _work(self) -> None:
        told: dict[str, str] = {}
        while not self._ending.wait(self._section.interval_s):
            told = self._round_of_thread(told)
        self._round_of_thread(told)

    def _round_of_thread(self, told: dict[str, str]) -> dict[str, str]:
        try:
            problems = self.make()
        except Exception:  # a thread that ended would only show by its absence
            _log.exception("a checkpoint could not be made")
            return told
        for label, message in problems.items():
            if told.get(label) != message:
                _log.error("checkpoint at %s: %s", label, message)
        return problems

    def _mark_behind(self) -> None:
        lines = self.tree.saved.size + self.tree.waiting
        for label, size in self._taken.items():
            if size < lines:
                self._behind_since.setdefault(label, self._clock())

    def _took(self, label: str, size: int) -> None:
        self._taken[label] = size
        self._behind_since.pop(label, None)

    def _root_at(self, size: int) -> bytes:
        tiles = Tiles(self.tree.folder, self.tree.saved.size)
        return range_hash(tiles.subtree, 0, size)

    def _keep(self, note: Note) -> None:
        """Puts the newest checkpoint beside the tiles, with the signatures that it has by now."""
        file = self.tree.folder / CHECKPOINT
        with suppress(FileNotFoundError, NoteError, UnicodeDecodeError):
            there = parse_note(file.read_text(encoding="utf-8"))
            if there.text == note.text:
                new = [one for one in note.signatures if one not in there.signatures]
                if not any(one.name != there.text.split("\n")[0] for one in new):
                    return
                kept = [one for one in there.signatures if one not in note.signatures]
                note = replace(note, signatures=(*note.signatures, *kept))
        with whole_file(file) as partial:
            partial.write_text(note.whole, encoding="utf-8")
        append_history(file.with_name(HISTORY), note.whole)
