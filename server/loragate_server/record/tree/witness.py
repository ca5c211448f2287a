"""`Witness`: signs a checkpoint of another server if it continues what was signed before.

Of each tree one file holds the newest checkpoint with its signatures; another keeps all of them, a
line each. What is signed is on the disk first: a witness that forgets signs two pasts.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from loragate_server.files import lock, sync_folder, whole_file
from loragate_server.record.chain import last_line_start
from loragate_server.record.signing.keys import KeyUnusableError
from loragate_server.record.tree.checkpoint import (
    Checkpoint,
    decode_hash,
    log_signatures,
    parse_checkpoint,
    trusted_checkpoint,
)
from loragate_server.record.tree.merkle import ProofError, require_consistency
from loragate_server.record.tree.note import Note, NoteError, Verifier, parse_note, signed_by
from loragate_server.record.tree.signer import NoteSigner
from loragate_server.record.tree.submit import SIZE_TYPE, Answer

NEWEST, HISTORY = "checkpoint", "checkpoints.jsonl"
MAX_PROOF = 63
_PLAIN = "text/plain"


LogKeys = Sequence[Ed25519PublicKey]
"""The keys of one log: of one that changes its key there are two for a while."""


class WitnessError(Exception):
    """The witness's own memory cannot be used; the text says why."""


@dataclass(frozen=True)
class Refusal(Exception):  # noqa: N818 (an answer, not a fault)
    """What is not signed, and the answer that says so."""

    answer: Answer


class Witness:
    """The memory of a witness in a folder, which belongs to one process. Thread-safe."""

    def __init__(
        self, folder: Path, name: str, signer: NoteSigner, logs: Sequence[LogKeys]
    ) -> None:
        """Opens the memory.

        Args:
            folder: of the memory; made when missing.
            name: under which it signs.
            signer: its key.
            logs: of whom it signs checkpoints, the keys of each.

        Raises:
            WitnessError: another process has the folder.
            OSError: it cannot be made.
        """
        self._folder, self._name, self._signer, self._logs = folder, name, signer, tuple(logs)
        self._keys = tuple(key for keys in logs for key in keys)
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(self._held)
        except OSError:
            os.close(self._held)
            raise WitnessError(f"{folder} is the memory of a witness that runs already") from None

    def close(self) -> None:
        """Gives the folder to the next process."""
        os.close(self._held)

    def add(self, body: bytes) -> Answer:
        """Answers a question, as C2SP's tlog-witness has it."""
        try:
            return self._add(body.decode("utf-8"))
        except Refusal as refusal:
            return refusal.answer
        except UnicodeDecodeError:
            return _answer(400, "the question is not UTF-8")
        except (OSError, WitnessError, KeyUnusableError) as error:
            return _answer(500, f"the witness cannot sign: {error}")

    def _add(self, body: str) -> Answer:
        old, proof, told = _question(body)
        try:
            note = parse_note(told)
            parse_checkpoint(note.text)
        except NoteError as error:
            raise Refusal(_answer(400, str(error))) from None
        try:
            checkpoint = trusted_checkpoint(note, self._keys)
        except NoteError as error:
            raise Refusal(_answer(403, str(error))) from None
        if old > checkpoint.size:
            raise Refusal(_answer(400, "the old size is larger than the checkpoint"))
        with self._lock:
            file = self._folder / hashlib.sha256(checkpoint.origin.encode()).hexdigest() / NEWEST
            before, signed_before = _known(file, checkpoint.origin)
            self._require_same_log(checkpoint.origin, signed_before, note)
            if old != before.size:
                raise Refusal(Answer(409, SIZE_TYPE, f"{before.size}\n"))
            if old == checkpoint.size and before.root != checkpoint.root:
                raise Refusal(_answer(409, f"another tree of {old} lines was signed"))
            try:
                require_consistency(old, checkpoint.size, proof, before.root, checkpoint.root)
            except ProofError as error:
                raise Refusal(_answer(422, str(error))) from None
            signed = self._signer.seen(note.text, self._name)
            # What is remembered already is not written again, nor what anybody else put below the
            # note: whoever has seen a checkpoint may send it as often as he likes.
            if before.size == 0 or checkpoint != before:
                own = log_signatures(note, checkpoint.origin, self._keys)
                _remember(file, replace(note, signatures=(*own, *signed)).whole)
        return Answer(200, _PLAIN, "".join(one.line for one in signed))

    def _require_same_log(self, origin: str, before: Note | None, now: Note) -> None:
        """A tree is one log's alone: the key of another, which is trusted for its own, is not.

        Logs whose keys are no longer known own nothing.
        """
        signers = self._signers(origin, now)
        if len(signers) > 1:
            raise Refusal(_answer(403, f"keys of {len(signers)} logs have signed {origin}"))
        try:
            owners = set() if before is None else self._signers(origin, before)
        except NoteError as error:
            raise WitnessError(f"what was signed of {origin} is damaged: {error}") from None
        if owners and not signers & owners:
            raise Refusal(_answer(403, f"the tree {origin} is that of a log with another key"))

    def _signers(self, origin: str, note: Note) -> set[int]:
        """Which of the logs have signed a note."""
        return {
            number
            for number, keys in enumerate(self._logs)
            if any(signed_by(note, Verifier(origin, key)) for key in keys)
        }


def _question(body: str) -> tuple[int, list[bytes], str]:
    """Old size, proof and note of a question."""
    head, gap, told = body.partition("\n\n")
    first, *rest = head.split("\n")
    size = first.removeprefix("old ")
    proper = first.startswith("old ") and size.isascii() and size.isdigit() and len(size) < 20
    if not gap or not proper or (size[0] == "0" and size != "0") or len(rest) > MAX_PROOF:
        raise Refusal(_answer(400, "the question is not `old SIZE`, a proof and a checkpoint"))
    try:
        return int(size), [decode_hash(line) for line in rest], told
    except NoteError as error:
        raise Refusal(_answer(400, f"the proof: {error}")) from None


def _known(file: Path, origin: str) -> tuple[Checkpoint, Note | None]:
    """What was signed of a tree last, and the note below which it was; of a new tree none."""
    try:
        note = parse_note(file.read_text(encoding="utf-8"))
        found = parse_checkpoint(note.text)
    except FileNotFoundError:
        if (file.parent / HISTORY).exists():
            raise WitnessError(f"{file} is gone, though checkpoints were signed") from None
        return Checkpoint(origin), None
    except (NoteError, UnicodeDecodeError) as error:
        raise WitnessError(f"{file} is damaged: {error}") from None
    if found.origin != origin:
        raise WitnessError(f"{file} belongs to another tree")
    return found, note


def _remember(file: Path, whole: str) -> None:
    if not file.parent.exists():
        file.parent.mkdir(mode=0o700)
        sync_folder(file.parent.parent)
    with whole_file(file) as partial:
        partial.write_text(whole, encoding="utf-8")
    sync_folder(file.parent)
    append_history(file.with_name(HISTORY), whole)


def append_history(file: Path, whole: str) -> None:
    """Adds a checkpoint to those of before.

    A line that a full disk or a crash left torn is taken away first: it would spoil the next one.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps({"note": whole}).encode("ascii") + b"\n"
    with open(file, "a+b", opener=_private) as history:
        end = history.seek(0, os.SEEK_END)
        if end and os.pread(history.fileno(), 1, end - 1) != b"\n":
            history.truncate(last_line_start(history.fileno(), end))
        history.write(line)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _answer(status: int, why: str) -> Answer:
    return Answer(status, _PLAIN, f"{why}\n")
