"""A folder of signed verdicts from elsewhere, in which the answer to a question may lie.

Every file is opened once and its content kept. At each question the folder and the keys are looked
at again, so that a file that is taken away, and a key that is revoked, count no longer.

What narrows an ALLOW does not narrow what speaks against a load: a verdict that says BLOCK,
REVIEW or INCONCLUSIVE of any of the adapters counts for every loader, base model and strength. And
while a file cannot be read, or holds what a trusted key has signed and nobody here understands,
nothing of the folder is accepted. Either costs a question to the service, and no more.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loragate._question import Question
from loragate._reading import read_head
from loragate._signed.elsewhere import Held, answer, hold
from loragate._signed.envelope import LARGEST_BYTES
from loragate._signed.keys import Stamp, TrustedKeys
from loragate._signed.refusal import NotUnderstood, SignatureRefused
from loragate.results import AuditResult, Verdict
from loragate.v1 import audit_pb2

log = logging.getLogger("loragate")

SUFFIX = ".json"

_Files = dict[Path, tuple[int, int, int]]


class AcceptedVerdicts:
    """Answers questions by signed verdicts. Thread-safe.

    Args:
        folder: holds envelopes as `*.json`; folders below are not looked into.
        keys: whose signatures are believed.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path, keys: TrustedKeys) -> None:
        self._folder, self._keys = folder, keys
        self._lock = threading.Lock()
        self._seen_keys: Stamp = ()
        self._seen: _Files = {}
        self._held: dict[Path, Held] = {}
        self._by_adapters: dict[tuple[str, ...], list[Held]] = {}
        self._against: dict[str, list[Held]] = {}
        self._unread = frozenset[Path]()
        with self._lock:
            self._refresh()

    def answer(self, question: Question) -> AuditResult | None:
        """An ALLOW that answers the question, or None: then the service has to be asked.

        None too where a verdict that has not run out speaks against any of the adapters.

        Raises:
            ValueError: the question does not say which base model is meant.
        """
        if question.dry_run or question.concept_ids or question.sources_elsewhere:
            return None
        if not question.expected_base_digest:
            raise ValueError(
                "A signed verdict is accepted for one base model only, and nobody else says here "
                "which is loaded. Give its digest (expected_base_digest, base_digest of a guard, "
                "--base-digest or LORAGATE_BASE_DIGEST), as `loragate get` shows it."
            )
        sha256s = tuple(sorted(one.sha256 for one in question.adapters))
        about, against = self._about(sha256s)
        now = datetime.now(UTC) - timedelta(seconds=question.clock_skew_s)
        if any(_lasts(held, now) for held in against):
            return None
        fitting = [one for held in about if (one := _answer(held, question)) is not None]
        if not fitting or not all(_is_pass(result) for result in fitting):
            return None
        return max(fitting, key=lambda one: one.expires_at or datetime.min.replace(tzinfo=UTC))

    def _about(self, sha256s: tuple[str, ...]) -> tuple[list[Held], list[Held]]:
        """The verdicts about exactly these adapters, and those against any of them."""
        with self._lock:
            try:
                self._refresh()
            except (OSError, SignatureRefused) as error:
                log.warning("No signed verdict of %s is accepted: %s", self._folder, error)
                return [], []
            if self._unread:
                unread = ", ".join(sorted(str(path) for path in self._unread))
                log.warning("No signed verdict is accepted while these may forbid it: %s", unread)
                return [], []
            against = [held for one in set(sha256s) for held in self._against.get(one, ())]
            return list(self._by_adapters.get(sha256s, ())), against

    def _refresh(self) -> None:
        """Reads what is new, and forgets what is gone; everything, where the keys have changed."""
        self._keys.current()
        keys, found = self._keys.stamp(), _files(self._folder)
        if (keys, found) == (self._seen_keys, self._seen):
            return
        if keys != self._seen_keys:
            self._held, self._seen = {}, {}
        kept = {
            path: one for path, one in self._held.items() if found.get(path) == self._seen.get(path)
        }
        unread = set[Path]()
        for path in [path for path, stamp in found.items() if self._seen.get(path) != stamp]:
            try:
                if (held := self._opened(path)) is not None:
                    kept[path] = held
            except (OSError, NotUnderstood) as error:
                log.warning("The signed verdict %s cannot be read: %s", path, error)
                unread.add(path)
                del found[path]  # so that it is tried again
        self._held, self._seen, self._seen_keys = kept, found, keys
        self._unread = frozenset(unread)
        self._by_adapters, self._against = {}, {}
        for held in kept.values():
            self._by_adapters.setdefault(held.sha256s, []).append(held)
            if _speaks_against(held):
                for sha256 in set(held.sha256s):
                    self._against.setdefault(sha256, []).append(held)

    def _opened(self, path: Path) -> Held | None:
        """What a file holds; None for what no trusted key has signed.

        Raises:
            OSError: it cannot be read now.
            NotUnderstood: a trusted key has signed it.
        """
        data = read_head(path, size_bytes=LARGEST_BYTES + 1)
        try:
            return hold(data, self._keys)
        except NotUnderstood:
            raise
        except ValueError as error:
            log.warning("The signed verdict %s is not accepted: %s", path, error)
            return None


def _files(folder: Path) -> _Files:
    """The files that may hold verdicts, each with the identity of its content."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(SUFFIX) or entry.name.startswith("."):
                continue
            try:
                one = entry.stat()
            except FileNotFoundError:  # a link that leads nowhere holds nothing
                continue
            if stat.S_ISREG(one.st_mode):
                found[Path(entry.path)] = (one.st_ino, one.st_size, one.st_mtime_ns)
    return found


def _answer(held: Held, question: Question) -> AuditResult | None:
    try:
        return answer(held, question)
    except SignatureRefused as error:
        log.debug("Decision %s: %s", held.statement.verdict.decision_id, error)
        return None


def _speaks_against(held: Held) -> bool:
    """Whether it forbids, or would if its policy enforced; a dry run forbids nothing."""
    message = held.statement.verdict
    said = {message.verdict, message.would_be_verdict}
    return not message.dry_run and said != {audit_pb2.VERDICT_KIND_ALLOW}


def _lasts(held: Held, now: datetime) -> bool:
    return held.statement.verdict.expires_at.ToDatetime(tzinfo=UTC) > now


def _is_pass(result: AuditResult) -> bool:
    """Whether it is an ALLOW on which a load may rest, and no pilot's."""
    return result.verdict is Verdict.ALLOW and result.mode == "ENFORCE" and result.lets_in()
