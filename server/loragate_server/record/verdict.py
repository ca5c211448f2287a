"""`Verdict`: a decision that is stored and logged, the only thing the server answers with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from loragate_server.policy.decision import Decision


@dataclass(frozen=True)
class Caller:
    """Who asked."""

    service: str = ""
    tenant: str = ""
    request_id: str = ""
    identity: str = ""
    """Authenticated name of the peer (certificate subject), empty without authentication."""
    trace_id: str = ""
    """Of the trace in which the decision was made, empty without tracing."""


@dataclass(frozen=True)
class Verdict:
    """A recorded decision. Times are timezone-aware UTC."""

    decision_id: str
    decision: Decision
    caller: Caller
    decided_at: datetime
    expires_at: datetime
    stage_times_s: dict[str, float]
    dry_run: bool = False
    cached: bool = False

    @property
    def binding(self) -> bool:
        """Whether a load may rest on it; the decision's mode says whether the policy enforces."""
        return not self.dry_run and not self.decision.evidence.restricted_to
