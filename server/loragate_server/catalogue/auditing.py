"""The stages that convert, screen and respond: rows of checked files in, rows of evidence out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.sketch import sketches_of
from loragate_server.audit.uses import Member
from loragate_server.catalogue.claims import Claim
from loragate_server.catalogue.earlier import recalled_from
from loragate_server.catalogue.failure import failure_of, poison
from loragate_server.catalogue.measured import packed
from loragate_server.gate.bases import ServedBase
from loragate_server.gate.measuring import asked_about, member_of, with_files
from loragate_server.intake.reader import read_adapter
from loragate_server.intake.unstored import NOWHERE
from loragate_server.progress import Leash

Row = dict[str, Any]

_log = logging.getLogger(__name__)


def unguarded() -> AbstractContextManager[Leash]:
    """A leash that nobody watches."""
    return nullcontext(Leash())


class ClaimBook(Protocol):
    """`Claims`, wherever it lives."""

    def claim(self, files: Sequence[tuple[str, str]]) -> list[Claim]:
        """See `Claims`."""

    def responses(self, keys: Sequence[str]) -> list[bytes]:
        """See `Claims`."""

    def begin_alone(self, key: str) -> None:
        """See `Claims`."""

    def end(self, keys: Sequence[str]) -> None:
        """See `Claims`."""


@dataclass(frozen=True)
class Question:
    """What is the same for all files of a job.

    Attributes:
        loaders: that verdicts have to speak for.
        screen_miss_rate: the policy's.
        stuck_after_s: a batch without a sign of life for so long ends its process.
    """

    loaders: tuple[str, ...]
    screen_miss_rate: float
    stuck_after_s: float


class Auditor:
    """Holds a base model with its gradients, and audits batch after batch on it.

    Args:
        serve: makes the base model with its engine; called once.
        question: what is the same for all files.
        claims: who audits which file.
        guard: what each batch is audited in; see `hanging`.
    """

    def __init__(
        self,
        serve: Callable[[], ServedBase],
        question: Question,
        claims: ClaimBook,
        guard: Callable[[], AbstractContextManager[Leash]] = unguarded,
    ) -> None:
        self._served = serve()
        self._question = question
        self._claims = claims
        self._guard = guard

    def audit(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Audits files, each once, and gives one row for each: its evidence, or why there is none.

        A failure of the batch is looked for file by file, so that it stays with the file.
        """
        fine = [row for row in rows if not row["reason"]]
        claims = self._claims.claim([(row["key"], row["location"]) for row in fine])
        claimed = dict(zip([row["location"] for row in fine], claims, strict=True))
        together = [row for row in fine if claimed[row["location"]] is Claim.AUDIT]
        made = {row["location"]: one for row, one in self._together(together)}
        for row in rows:
            claim = claimed.get(row["location"])
            if claim is Claim.POISON:
                yield _done(row, **poison())
            elif claim is Claim.ALONE:
                self._claims.begin_alone(row["key"])
                yield self._alone(row)
                self._claims.end([row["key"]])
            else:
                yield made.get(row["location"]) or _done(row, same=claim is Claim.SAME)

    def _together(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
        if not rows:
            return
        try:
            if len(rows) > 1:
                # Before the guard, and once: a source that is followed brings files one by one.
                self._served.engine.try_sizes_of_many()
            made = self._evidence(rows)
        except Exception as error:  # somebody's, and the others must not suffer for it
            _log.warning("a batch is audited file by file: %s: %s", type(error).__name__, error)
            made = []
        # out here, for the error holds what the failed pass had in memory
        yield from zip(rows, made or map(self._alone, rows), strict=True)
        self._claims.end([row["key"] for row in rows])

    def _alone(self, row: Row) -> Row:
        try:
            return self._evidence([row])[0]
        except Exception as error:
            return _done(row, **failure_of(error))

    def _evidence(self, rows: Sequence[Row]) -> list[Row]:
        with self._guard() as leash:
            return self._measured(rows, leash)

    def _measured(self, rows: Sequence[Row], leash: Leash) -> list[Row]:
        served = self._served
        found: dict[int, Row] = {}
        members: dict[int, Member] = {}
        files: dict[int, StoredFile] = {}
        times_s: dict[int, dict[str, float]] = {}
        for number, row in enumerate(rows):
            leash.check()
            began = time.monotonic()
            files[number] = file = file_of(row)
            try:
                read = read_adapter(
                    file,
                    served.base,
                    leash,
                    loaders=self._question.loaders,
                    data=row["data"],
                )
            except Exception as error:
                found[number] = _done(row, **failure_of(error))
                continue
            members[number] = member_of(read, (Strength(),), optional=False)
            times_s[number] = {"intake": row["intake_s"], "read": time.monotonic() - began}
        before = self._claims.responses([rows[number]["key"] for number in members])
        measured = served.engine.audit_many(
            [[member] for member in members.values()],
            leash,
            screen_miss_rate=self._question.screen_miss_rate,
            recalled=[recalled_from(one) for one in before],
        )
        for (number, member), evidence in zip(members.items(), measured, strict=True):
            leash.check()
            sketches = sketches_of(served.base, [member])
            evidence = with_files(evidence, sketches, [files[number]])
            evidence = asked_about(evidence, (), self._question.screen_miss_rate)
            stages = {**times_s[number], **evidence.stage_times_s}
            found[number] = _done(rows[number], evidence=evidence, times_s=stages)
        return [found[number] for number in range(len(rows))]


def file_of(row: Row) -> StoredFile:
    """The file of a row, which is in no store."""
    return StoredFile(
        row["sha256"], row["size_bytes"], NOWHERE, row["config_json"], row["weights_sha256"]
    )


def _done(
    row: Row,
    *,
    same: bool = False,
    evidence: Evidence | None = None,
    times_s: dict[str, float] | None = None,
    **failure: Any,
) -> Row:
    """The row without its bytes, and with what came of them."""
    kept = {key: value for key, value in row.items() if key not in ("data", "intake_s")}
    measured = b"" if evidence is None else packed(evidence, times_s or {})
    return {**kept, "same": same, "measured": measured, **failure}
