"""Answers of earlier scans, given again while nothing that they rest on has changed.

The engine takes seconds to start, so a hook that runs at each commit should not need it for files
that it has seen. What is kept is what the engine answered, until it runs out; a doubt of any kind
means that the engine is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from loragate._reading import read_once
from loragate.cli.adapter_files import FoundFile
from loragate.cli.outcome import Outcome
from loragate.cli.output import as_json, json_line
from loragate.reference import AuditOptions
from loragate.results import (
    AuditedAdapter,
    AuditResult,
    Digests,
    Finding,
    KeyCoverage,
    Measured,
    MeasureKind,
    Mode,
    Reason,
    Remedy,
    Severity,
    Verdict,
)

FORMAT = 2
NAME = "answers.json"


@dataclass
class KeptAnswers:
    """The answers in a state folder.

    A file's verdict also depends on what is on record as blocked, since the file may be a copy or a
    part of that. So an answer other than BLOCK counts only beside the blocked files that it was
    given beside.

    Attributes:
        file: where they are kept.
        fingerprint: of all that an answer rests on beside the file and the question.
        answers: each with the blocked files that it was given beside, by a key.
        blocked: digests of the files on record as blocked.
    """

    file: Path
    fingerprint: str
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, state: Path, fingerprint: str) -> KeptAnswers:
        """Reads them; none where a scan did not end in order, or nothing can be read."""
        kept = cls(state / NAME, fingerprint)
        try:
            content = json.loads(kept.file.read_bytes())
            if content["format"] == FORMAT and content["complete"] is True:
                kept.answers, kept.blocked = dict(content["answers"]), set(content["blocked"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return kept

    def answer(self, found: FoundFile, asked: AuditOptions) -> AuditResult | None:
        """The answer about a file as it is now; None where the engine has to be asked."""
        if found.uri or found.refusal is not None:
            return None
        try:
            digest = hashlib.sha256(read_once(found.path)).hexdigest()
            entry = self.answers[self._key(digest, asked)]
            result = result_from(entry["result"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        beside = result.verdict is Verdict.BLOCK or entry["beside"] == self.beside
        if not beside or not result.binding or result.has_expired():
            return None
        if [one.sha256 for one in result.adapters] != [digest]:
            return None
        return replace(result, cached=True)

    def begin(self) -> None:
        """Notes that the engine is about to record what is not yet kept here."""
        self._write(complete=False)

    def keep(self, outcome: Outcome, asked: AuditOptions, beside: str) -> None:
        """Keeps an answer of the engine, given beside the blocked files that `beside` names.

        Of an address only that it is blocked: a configuration beside it may have changed what was
        audited, and its bytes alone would have another answer.
        """
        result = outcome.result
        if result is None or len(result.adapters) != 1:
            return
        digest = result.adapters[0].sha256
        if result.verdict is Verdict.BLOCK:
            self.blocked.add(digest)
        if outcome.found.uri:
            return
        entry = {"beside": beside, "result": json.loads(json_line(as_json(result)))}
        self.answers[self._key(digest, asked)] = entry

    def end(self) -> None:
        """Writes all that still counts."""
        self.answers = {key: one for key, one in self.answers.items() if _lasts(one)}
        self._write(complete=True)

    @property
    def beside(self) -> str:
        """Names the set of files on record as blocked."""
        return hashlib.sha256(" ".join(sorted(self.blocked)).encode()).hexdigest()

    def _key(self, digest: str, asked: AuditOptions) -> str:
        question = json.dumps([FORMAT, self.fingerprint, digest, sorted(asked.items())])
        return hashlib.sha256(question.encode()).hexdigest()

    def _write(self, *, complete: bool) -> None:
        content = {
            "format": FORMAT,
            "complete": complete,
            "blocked": sorted(self.blocked),
            "answers": self.answers,
        }
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self.file)


def _lasts(entry: Mapping[str, Any]) -> bool:
    try:
        return not result_from(entry["result"]).has_expired()
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def result_from(fields: Mapping[str, Any]) -> AuditResult:
    """Reads what `as_json` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else.
    """
    return AuditResult(
        verdict=Verdict(fields["verdict"]),
        decision_id=fields["decision_id"],
        mode=Mode(fields["mode"]),
        would_be_verdict=Verdict(fields["would_be_verdict"]),
        remedy=Remedy(fields["remedy"]),
        reasons=tuple(Reason(**one) for one in fields["reasons"]),
        findings=tuple(_finding(one) for one in fields["findings"]),
        adapters=tuple(_adapter(one) for one in fields["adapters"]),
        base_model=fields["base_model"],
        digests=Digests(**fields["digests"]),
        engine_version=fields["engine_version"],
        kernel_backend=fields["kernel_backend"],
        stage_times_s=dict(fields["stage_times_s"]),
        decided_at=datetime.fromisoformat(fields["decided_at"]),
        expires_at=datetime.fromisoformat(fields["expires_at"]),
        dry_run=fields["dry_run"],
        binding=fields["binding"],
        restricted_to=tuple(fields["restricted_to"]),
        loaders=tuple(fields["loaders"]),
    )


def _finding(fields: Mapping[str, Any]) -> Finding:
    return Finding(
        **{
            **fields,
            "severity": Severity(fields["severity"]),
            "verdict": Verdict(fields["verdict"]),
            "remedy": Remedy(fields["remedy"]),
            "adapter_sha256s": tuple(fields["adapter_sha256s"]),
            "decided_by": _measured(fields["decided_by"]),
        }
    )


def _measured(fields: Mapping[str, Any] | None) -> Measured | None:
    return None if fields is None else Measured(**{**fields, "kind": MeasureKind(fields["kind"])})


def _adapter(fields: Mapping[str, Any]) -> AuditedAdapter:
    coverage = fields["coverage"]
    unmapped = tuple(coverage["unmapped"])
    return AuditedAdapter(
        **{**fields, "coverage": KeyCoverage(**{**coverage, "unmapped": unmapped})}
    )
