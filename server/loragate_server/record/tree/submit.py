"""`RemoteWitness`: asks a witness to sign a checkpoint, as C2SP's tlog-witness has it."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, replace

from loragate_server.config.checkpoints import WitnessAddress
from loragate_server.record.tree.checkpoint import Checkpoint
from loragate_server.record.tree.copies import Consistency, ExportError, RootAt
from loragate_server.record.tree.note import (
    WITNESS_KEY,
    Note,
    NoteError,
    NoteSignature,
    Verifier,
    parse_signatures,
    seen_at,
)
from loragate_server.record.tree.signer import read_note_key

PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
TIMEOUT_S = 20.0
_MAX_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Answer:
    """What a witness answered."""

    status: int
    content_type: str
    body: str


class RemoteWitness:
    """A witness at a URL."""

    def __init__(self, address: WitnessAddress) -> None:
        """Reads its key.

        Raises:
            KeyUnusableError: it cannot be read.
        """
        self._address = address
        key = read_note_key(address.public_key.expanduser())
        self._verifier = Verifier(address.name, key, WITNESS_KEY)
        self._known_size = 0

    @property
    def label(self) -> str:
        """Its name."""
        return self._address.name

    def take(
        self, note: Note, checkpoint: Checkpoint, consistency: Consistency, root_at: RootAt
    ) -> tuple[NoteSignature, ...]:
        """Has the checkpoint signed, and holds the signature to the witness's key.

        Raises:
            ExportError: it cannot be reached, or refuses.
        """
        answer = self._ask(note, min(self._known_size, checkpoint.size), checkpoint, consistency)
        if answer.status == 409 and answer.content_type == SIZE_TYPE:
            known = self._size(answer.body)
            if known > checkpoint.size:
                raise ExportError(
                    f"the witness {self.label} has signed {known} lines, and this log has only "
                    f"{checkpoint.size}: it was cut or rolled back"
                )
            answer = self._ask(note, known, checkpoint, consistency)
        if answer.status != 200:
            raise ExportError(
                f"the witness {self.label} refuses the checkpoint of {checkpoint.size} lines with "
                f"{answer.status}: {answer.body.strip()[:200]}"
            )
        signatures = self._signatures(note, answer.body)
        self._known_size = checkpoint.size
        return signatures

    def _ask(
        self, note: Note, old: int, checkpoint: Checkpoint, consistency: Consistency
    ) -> Answer:
        proof = consistency(old, checkpoint.size)
        lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
        body = f"old {old}\n{lines}\n{note.whole}"
        return asyncio.run(_post(f"{self._address.url.rstrip('/')}{PATH}", body, self.label))

    def _size(self, body: str) -> int:
        text = body.removesuffix("\n")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ExportError(f"the witness {self.label} answers with a size that is none")
        return int(text)

    def _signatures(self, note: Note, body: str) -> tuple[NoteSignature, ...]:
        try:
            found = parse_signatures(body)
            own = tuple(one for one in found if one.key_id == self._verifier.key_id)
            if seen_at(replace(note, signatures=own), self._verifier) is None:
                raise NoteError("nothing is signed by its key")
        except NoteError as error:
            raise ExportError(f"the answer of the witness {self.label}: {error}") from None
        return own


async def _post(url: str, body: str, label: str) -> Answer:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=body.encode(), allow_redirects=False) as answer,
        ):
            data = await answer.content.read(_MAX_ANSWER_BYTES)
            return Answer(answer.status, answer.content_type, data.decode("utf-8", "replace"))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        cause = str(error) or type(error).__name__
        raise ExportError(f"the witness {label} cannot be reached: {cause}") from error
