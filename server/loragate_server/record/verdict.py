"""`Verdict`: a decision that is stored and logged, the only thing the server answers with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.policy.decision import Decision
from loragate_server.record.basis import Basis

SCAN_SERVICE = "catalogue"
"""As which a scan of a catalogue is on record as the caller of its decisions."""

_OF_A_SCAN = re.compile("[0-9a-f]{16}/", re.IGNORECASE)  # databases may look for it in any case


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
    adapter_names: tuple[str, ...] = ()
    """How the caller called each adapter, in their order, "" where he did not. Nobody has checked
    them, and they come from strangers: escape them wherever they are shown."""

    @property
    def is_a_scan(self) -> bool:
        """Whether it says of itself what makes its decisions count as those of a scan.

        A scan does not look at what it has on record. Nobody else may put a decision there for it,
        which could be about the same bytes at another strength or beside another configuration.
        """
        return self.service == SCAN_SERVICE and _OF_A_SCAN.match(self.request_id) is not None


@dataclass(frozen=True)
class Verdict:
    """A recorded decision. Times are timezone-aware UTC.

    Attributes:
        basis: with which the decision can be made again; None in records of before that was kept.
        envelope_sha256: lower-case hexadecimal digest of `envelope`; empty where nothing is signed.
        envelope: the signed form (`record.signing`); not in the log, which has its digest.
    """

    decision_id: str
    decision: Decision
    caller: Caller
    decided_at: datetime
    expires_at: datetime
    stage_times_s: dict[str, float]
    dry_run: bool = False
    cached: bool = False
    basis: Basis | None = None
    envelope_sha256: str = ""
    envelope: bytes = field(default=b"", repr=False, metadata={"recorded": False})

    @property
    def binding(self) -> bool:
        """Whether a load may rest on it; the decision's mode says whether the policy enforces."""
        return not self.dry_run and not self.decision.evidence.restricted_to

    @property
    def named_adapters(self) -> tuple[tuple[CoverageEvidence, str], ...]:
        """Each adapter with what the caller called it, "" where he did not."""
        names = iter(self.caller.adapter_names)
        return tuple((one, next(names, "")) for one in self.decision.evidence.adapters)
