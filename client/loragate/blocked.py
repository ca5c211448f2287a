"""The exception of those that load: an adapter was not loaded, because of a decision."""

from __future__ import annotations

from loragate.results import AuditResult


class AdapterBlocked(Exception):  # noqa: N818 - its name says that it is one
    """An adapter was not loaded, because of a decision. Not an `AuditError`: the audit worked.

    Attributes:
        name: the adapter, as the caller named it.
        result: the decision, with its findings.
    """

    def __init__(self, name: str, result: AuditResult) -> None:
        super().__init__(name, result)
        self.name = name
        self.result = result

    def __str__(self) -> str:
        result = self.result
        why = " ".join(reason.message for reason in result.reasons)
        text = f"{self.name} was not loaded: {result.verdict}. {why}".rstrip()
        if result.remedy != "NONE":
            text += f" Remedy: {result.remedy.lower().replace('_', ' ')}."
        return text + (f" (decision {result.decision_id})" if result.decided else "")
