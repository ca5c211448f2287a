"""Outcomes as SARIF 2.1.0, which code hosts show beside the files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from loragate.cli.adapter_files import FoundFile
from loragate.cli.exit_code import ExitCode
from loragate.cli.outcome import Outcome

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = {
    "concept-learned": "The adapter has learned a forbidden concept.",
    "needs-review": "A person has to look at the adapter.",
    "refused": "The file is not a sound adapter, and was not audited.",
    "no-decision": "The service could not be asked about it, or did not decide.",
    "not-binding": "It was only asked about as a dry run, or about some concepts.",
    "only-by-pilot": "It is let in because the policy is a pilot; enforced, it would not be.",
}

_RULE_OF = {
    ExitCode.BLOCK: "concept-learned",
    ExitCode.REVIEW: "needs-review",
    ExitCode.NOT_BINDING: "not-binding",
    ExitCode.ALLOW: "only-by-pilot",
}
_LEVEL_OF = {
    ExitCode.REVIEW: "warning",
    ExitCode.NOT_BINDING: "note",
    ExitCode.ALLOW: "note",
}


def text(outcomes: Sequence[Outcome]) -> str:
    """One run; everything is a result of it but ALLOW, unless only a pilot allows."""
    from loragate import __version__

    rules = [{"id": rule, "shortDescription": {"text": said}} for rule, said in _RULES.items()]
    driver = {"name": "loragate", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": [_result(one) for one in outcomes if one.is_worth_a_look],
        "invocations": [
            {
                # Not successful where a file has no decision: the report is then not complete.
                "executionSuccessful": all(one.code is not ExitCode.ERROR for one in outcomes),
            }
        ],
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _result(outcome: Outcome) -> dict[str, Any]:
    rule = _RULE_OF.get(outcome.code, "refused" if outcome.is_refused else "no-decision")
    result: dict[str, Any] = {
        "ruleId": rule,
        "level": _LEVEL_OF.get(outcome.code, "error"),
        "message": {"text": outcome.message},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _place(outcome.found)}}}],
        "properties": {"reason": outcome.reason},
    }
    if outcome.result is not None:
        top = outcome.result.top_finding
        result["properties"] |= {
            "decisionId": outcome.result.decision_id,
            "concept": top.concept_id if top else None,
        }
        digests = [adapter.sha256 for adapter in outcome.result.adapters]
        result["partialFingerprints"] = {"sha256/v1": digests[0]} if digests else {}
    return result


def _place(found: FoundFile) -> str:
    """Where a file is, relative to the folder that was looked through; an address stands whole."""
    return quote(os.fsencode(found.name), safe="/:" if found.uri else "/")
