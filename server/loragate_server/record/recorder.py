"""`Recorder`: makes a decision a verdict by writing it down twice, or refuses it.

The order of writing: the row is inserted but not committed; then the line is appended to the
decision log and synced; then the row is committed; only then is there a verdict to answer with. So

- an answered verdict is in the log and in the database;
- whatever can be read from the database is in the log (a reader never finds an ALLOW that the log,
  which is the authority, does not have);
- every required audit device (`devices`) has the line, for that is waited for before the commit;
- most failures of database and devices show before the line is written. If the commit itself fails,
  or a device does not take the line, the log holds a decision that nobody was answered with; a note
  after it says so, at the next start where the process was killed in between (`unfinished`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Decision, Mode, VerdictKind
from loragate_server.record.basis import Basis
from loragate_server.record.chain import Link
from loragate_server.record.codec import encode, parse_verdict, to_json
from loragate_server.record.database import Database, Row, decision_pruned, decision_unknown
from loragate_server.record.devices.devices import Devices
from loragate_server.record.failures import database_failure, log_failure
from loragate_server.record.ids import new_decision_id
from loragate_server.record.log import DecisionLog
from loragate_server.record.migrate import DEFAULT_TIMEOUT_S, upgrade
from loragate_server.record.outbox.announcer import Announcer
from loragate_server.record.paging import Place, make_token, read_token
from loragate_server.record.search import Search
from loragate_server.record.signing.signer import VerdictSigner
from loragate_server.record.tree.keeper import CheckpointKeeper
from loragate_server.record.unfinished import note_unfinished
from loragate_server.record.verdict import Caller, Verdict

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100

Verdicts = list[Verdict]
"""Spelled here, because the class below has a method `list`."""


class Recorder:
    """Writes decisions to the decision log and the database, and finds them again. Thread-safe."""

    def __init__(
        self,
        database_url: str,
        log_path: Path,
        *,
        database_timeout_s: float = DEFAULT_TIMEOUT_S,
        migrate: bool = True,
        signer: VerdictSigner | None = None,
        keeper: CheckpointKeeper | None = None,
        log_file_bytes: int = 0,
        announcer: Announcer | None = None,
        devices: Devices | None = None,
    ) -> None:
        """Migrates the database (unless told not to) and opens the log.

        Args:
            database_url: of SQLAlchemy.
            log_path: the decision log.
            database_timeout_s: longest wait for the database.
            migrate: whether to make or change the tables.
            signer: signs every decision; None signs none.
            keeper: of the log's tree; None keeps no tree.
            log_file_bytes: size from which on a file of the log is full; 0 for one without end.
            announcer: as of `Database`.
            devices: get every line of the log; they end with the recorder.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE, DECISION_LOG_UNAVAILABLE or DISK_FULL.
        """
        if migrate:
            upgrade(database_url, database_timeout_s)
        self.database = Database(database_url, database_timeout_s, announcer)
        self._devices = devices or Devices((), log_path.parent, log_path)
        if keeper is None:
            self.log = DecisionLog(log_path, file_bytes=log_file_bytes, wrote=self._devices.wrote)
        else:
            self.log = keeper.open_log(log_path, log_file_bytes, self._devices.wrote)
        self._devices.begin(self.log.last)
        try:
            note_unfinished(self.database, self.log, log_path)
        except OSError as error:
            raise log_failure(error, log_path) from error
        self._signer, self._keeper = signer, keeper

    def record(
        self,
        decision: Decision,
        caller: Caller,
        *,
        stage_times_s: Mapping[str, float],
        dry_run: bool = False,
        basis: Basis | None = None,
    ) -> Verdict:
        """Records a decision; see the module for what holds when this returns.

        Args:
            decision: what was decided.
            caller: who asked.
            stage_times_s: stage name to seconds, of the whole request.
            dry_run: recorded too, but marked as not binding.
            basis: with which the decision can be made again.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE, DECISION_LOG_UNAVAILABLE, DISK_FULL or
                SIGNING_UNAVAILABLE; there is no verdict then.
        """
        if self._keeper is not None:
            self._keeper.require_in_time()
        self._devices.require()
        now = datetime.now(UTC)
        verdict = Verdict(
            decision_id=new_decision_id(now),
            decision=decision,
            caller=caller,
            decided_at=now,
            # An approval or a list entry that ends does so however long the recording takes.
            expires_at=(basis.judged_at if basis else now) + timedelta(seconds=decision.ttl_s),
            stage_times_s=dict(stage_times_s),
            dry_run=dry_run,
            basis=basis,
        )
        if self._signer is not None:
            verdict = self._signer.signed(verdict)
        payload = encode(verdict)
        binding = verdict.binding and decision.mode is Mode.ENFORCE
        logged = False

        def log() -> None:
            nonlocal logged
            link = self.log.append_decision(payload, binding=binding)
            logged = True
            self.require_taken(link)

        try:
            self.database.insert(verdict, to_json(payload), before_commit=log)
        except NoDecisionError as error:
            if logged:
                self._note_not_answered(verdict.decision_id, error)
            raise
        return verdict

    def get(self, decision_id: str) -> Verdict:
        """A recorded decision.

        Raises:
            NoDecisionError: DECISION_UNKNOWN or DATABASE_UNAVAILABLE.
        """
        return stored_verdict(self.database, decision_id)

    def list(
        self,
        page_size: int = 0,
        page_token: str = "",
        adapter_sha256: str = "",
        verdict: VerdictKind | None = None,
        service: str = "",
        base_model: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Verdicts, str]:
        """Recorded decisions, newest first, and the token of the next page ("" on the last one).

        Args:
            page_size: 0 means 50; more than 100 means 100.
            page_token: from the page before, with the same filters; "" for the first page.
            adapter_sha256: only decisions about this adapter; "" for all.
            verdict: only decisions with this binding verdict; None for all.
            service: only decisions that it asked for; "" for all.
            base_model: only decisions on the one of this name; "" for all.
            since: the first moment that belongs to the list; timezone-aware.
            until: the first moment that no longer belongs to it; timezone-aware.

        Raises:
            NoDecisionError: PAGE_TOKEN_INVALID, REQUEST_INVALID or DATABASE_UNAVAILABLE.
        """
        search = Search(
            answered=verdict,
            adapter_sha256=adapter_sha256.lower(),
            service=service,
            base_model=base_model,
            since=since,
            until=until,
        )
        return self.search(search, page_size, page_token)

    def search(
        self, search: Search, page_size: int = 0, page_token: str = ""
    ) -> tuple[Verdicts, str]:
        """As `list`, with more conditions.

        Raises:
            NoDecisionError: PAGE_TOKEN_INVALID, REQUEST_INVALID or DATABASE_UNAVAILABLE.
        """
        size = checked_page_size(page_size)
        after = read_token(page_token, search.words)
        # One more than asked for tells whether there is a next page.
        rows = self.database.page(size + 1, after, search)
        verdicts = [_decode_row(row) for row in rows[:size]]
        if len(rows) <= size:
            return verdicts, ""
        end = Place(verdicts[-1].decided_at, verdicts[-1].decision_id)
        return verdicts, make_token(end, search.words)

    def require_taken(self, link: Link) -> None:
        """Waits until every required audit device has a line of the log.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE; nothing may rest on the line.
        """
        self._devices.require_taken(link)

    def check(self) -> None:
        """For readiness: whether the next decision could be recorded.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE, DECISION_LOG_UNAVAILABLE or DISK_FULL.
        """
        if self._keeper is not None:
            self._keeper.require_in_time()
        self.log.check()
        self._devices.require()
        self.database.check()

    def close(self) -> None:
        """Closes log, devices and database."""
        self.log.close()
        self._devices.close()
        self.database.close()

    def _note_not_answered(self, decision_id: str, error: NoDecisionError) -> None:
        # The caller gets the first error; a log that fails as well says nothing new.
        with contextlib.suppress(NoDecisionError):
            self.log.append_note(
                {"code": "not_answered", "decision_id": decision_id, "cause": error.reason.value}
            )


def stored_verdict(database: Database, decision_id: str) -> Verdict:
    """A recorded decision, for those who read and need no decision log.

    Raises:
        NoDecisionError: DECISION_UNKNOWN or DATABASE_UNAVAILABLE.
    """
    row = database.get(decision_id)
    if row is None:
        gone = database.pruned(decision_id)
        raise decision_pruned(decision_id, *gone) if gone else decision_unknown(decision_id)
    return _decode_row(row)


def _decode_row(row: Row) -> Verdict:
    """As `decode_stored`, with the signed form, which has to be the one that was logged.

    What was put back from the log has none, and gives none.
    """
    verdict = decode_stored(row.payload)
    if row.envelope and hashlib.sha256(row.envelope).hexdigest() != verdict.envelope_sha256:
        raise database_failure(ValueError("the signed form of a decision is not the logged one"))
    return replace(verdict, envelope=row.envelope)


def decode_stored(payload: str) -> Verdict:
    """The verdict of a row.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE, if it cannot be read.
    """
    try:
        return parse_verdict(payload)
    except ValueError as error:
        raise database_failure(ValueError("a stored decision cannot be read")) from error


def checked_page_size(page_size: int) -> int:
    """How many entries a page holds: 0 means the default, and there is a most.

    Raises:
        NoDecisionError: REQUEST_INVALID for a negative one.
    """
    if page_size < 0:
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"The page size {page_size} is negative.",
            remedy="Use 0 for the default, or 1 to 100.",
            metadata={"field": "page_size"},
        )
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
