"""What the checkpoint is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loragate_server.checkpoint.result import Result
from loragate_server.intercept.extraction import Denial


@dataclass(frozen=True)
class CheckSource:
    """Through which door a request came in.

    Attributes:
        door: "ext_authz", "ext_proc", "http" or "relay".
        extractor: the one that the proxy's configuration names; empty for the default.
        identity: authenticated name of the proxy; empty without authentication.
        rewrites: the door can replace the body, so the audited copies have to be loaded.
    """

    door: str
    extractor: str = ""
    identity: str = ""
    rewrites: bool = False


@dataclass(frozen=True)
class CheckOutcome:
    """The answer to one request.

    Attributes:
        result: how the request fared.
        extractor: name of the one that read it.
        decision_id: of the recorded decision; empty where there is none.
        verdict: ALLOW, REVIEW, INCONCLUSIVE or BLOCK; empty without a decision.
        mode: ENFORCE or PILOT; empty without a decision.
        denial: the answer in the place of the image server's; None where the request passes.
        audited: for each adapter of the request, by its number, the audited copy as the image
            server sees it; complete where the request may pass, empty where it may not.
        body: the body that names these copies, for a door that rewrites; None for no change.
    """

    result: Result
    extractor: str
    decision_id: str = ""
    verdict: str = ""
    mode: str = ""
    denial: Denial | None = None
    audited: Mapping[int, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)

    @property
    def allowed(self) -> bool:
        """Whether the request passes."""
        return self.denial is None

    @property
    def facts(self) -> Mapping[str, str]:
        """What proxies are told, for their own logs."""
        return {
            "result": self.result.value,
            "decision_id": self.decision_id,
            "verdict": self.verdict,
            "extractor": self.extractor,
            "mode": self.mode,
        }
