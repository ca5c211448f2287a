"""A folder of signed verdicts from elsewhere, in which the answer to a question may lie.

Every file is opened once and its content kept. At each question the folder and the keys are looked
at again, so that a file that is taken away, and a key that is revoked, count no longer.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from loragate._question import Question
from loragate._reading import read_once
from loragate._signed.elsewhere import Held, answer, hold
from loragate._signed.keys import Stamp, TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate.results import AuditResult, Verdict

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
        with self._lock:
            self._refresh()

    def answer(self, question: Question) -> AuditResult | None:
        """An ALLOW that answers the question, or None: then the service has to be asked.

        None too where any verdict about this use that has not run out says something else.

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
        fitting = [
            result
            for held in self._about(tuple(sorted(one.sha256 for one in question.adapters)))
            if (result := _answer(held, question)) is not None
        ]
        if not fitting or not all(_is_pass(result) for result in fitting):
            return None
        return max(fitting, key=lambda one: one.expires_at or datetime.min.replace(tzinfo=UTC))

    def _about(self, sha256s: tuple[str, ...]) -> list[Held]:
        """The verdicts about exactly these adapters, at whatever strengths."""
        with self._lock:
            try:
                self._refresh()
            except (OSError, SignatureRefused) as error:
                log.warning("No signed verdict of %s is accepted: %s", self._folder, error)
                return []
            return list(self._by_adapters.get(sha256s, ()))

    def _refresh(self) -> None:
        """Reads what is new, and forgets what is gone; everything, where the keys have changed."""
        self._keys.current()
        keys, found = self._keys.stamp(), _files(self._folder)
        if (keys, found) == (self._seen_keys, self._seen):
            return
        if keys != self._seen_keys:
            self._held, self._seen = {}, {}
        kept = {
            path: one for path, one in self._held.items() if found.get(path) == self._seen[path]
        }
        for path, stamp in found.items():
            if self._seen.get(path) != stamp and (held := self._opened(path)) is not None:
                kept[path] = held
        self._held, self._seen, self._seen_keys = kept, found, keys
        self._by_adapters = {}
        for held in kept.values():
            self._by_adapters.setdefault(held.sha256s, []).append(held)

    def _opened(self, path: Path) -> Held | None:
        try:
            return hold(read_once(path), self._keys)
        except (OSError, ValueError) as error:
            log.warning("The signed verdict %s is not accepted: %s", path, error)
            return None


def _files(folder: Path) -> _Files:
    """The files that may hold verdicts, each with the identity of its content."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                found[Path(entry.path)] = _identity(entry)
    return found


def _identity(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        one = entry.stat()
    except OSError:  # a link that leads nowhere is no reason to leave the others unread
        return (0, 0, 0)
    return (one.st_ino, one.st_size, one.st_mtime_ns)


def _answer(held: Held, question: Question) -> AuditResult | None:
    try:
        return answer(held, question)
    except SignatureRefused as error:
        log.debug("Decision %s: %s", held.statement.verdict.decision_id, error)
        return None


def _is_pass(result: AuditResult) -> bool:
    """Whether it is an ALLOW on which a load may rest, and no pilot's."""
    return result.verdict is Verdict.ALLOW and result.mode == "ENFORCE" and result.lets_in()
