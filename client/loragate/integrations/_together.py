"""One verdict over adapters whose bytes are at hand, however large they are together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loragate import _core
from loragate.client import AuditClient
from loragate.errors import ADAPTER_NOT_STORED, AdapterBlocked, AuditError
from loragate.reference import INLINE_LIMIT_BYTES, AdapterReference, AuditOptions
from loragate.results import AuditResult, Verdict

OnReview = Literal["block", "allow"]


class Gatekeeper:
    """Asks about adapters that will be active together, and refuses what may not be loaded.

    Args:
        client: asks the service; its `on_unavailable` decides when there is no answer.
        base_model: name under which the service knows the model; empty for its default.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.

    Raises:
        ValueError: `on_review` is neither "block" nor "allow".
    """

    def __init__(
        self, client: AuditClient, *, base_model: str = "", on_review: OnReview = "block"
    ) -> None:
        if on_review not in ("block", "allow"):
            raise ValueError(f"on_review must be 'block' or 'allow', not {on_review!r}.")
        self._client = client
        self._base_model = base_model
        self._loadable = {Verdict.ALLOW} | ({Verdict.REVIEW} if on_review == "allow" else set())

    def admit(self, name: str, references: Sequence[AdapterReference]) -> AuditResult:
        """Returns the decision where it lets the adapters in.

        Raises:
            AdapterBlocked: it does not.
            AuditError: no decision exists.
        """
        result = audit_together(self._client, references, base_model=self._base_model)
        if result.verdict not in self._loadable:
            raise AdapterBlocked(name, result)
        return result


def audit_together(
    client: AuditClient, references: Sequence[AdapterReference], *, base_model: str = ""
) -> AuditResult:
    """As `client.audit`, also for several adapters that do not fit into one message.

    The service is asked by digests. What it does not hold is audited by itself first, which
    stores it; an adapter that is not allowed alone is not asked about in company.
    """
    size = sum(len(reference.data or b"") for reference in references)
    if len(references) == 1 or size <= INLINE_LIMIT_BYTES:
        return client.audit(references, base_model=base_model)
    call = _by_digest(client, references, {"base_model": base_model})
    try:
        return client._send(call)
    except AuditError as error:
        if error.reason != ADAPTER_NOT_STORED:
            raise
    for reference in references:
        alone = client.audit(reference, base_model=base_model)
        if not alone.decided or alone.verdict is Verdict.BLOCK:
            return alone
    return client._send(call)


def _by_digest(
    client: AuditClient, references: Sequence[AdapterReference], options: AuditOptions
) -> _core.Call[AuditResult]:
    """A question that names every adapter by its digest, and sends none of their bytes."""
    core = client._core
    bare = core._request(options)
    method = "loragate.v1.AuditService/Audit"
    return _core.Call(
        operation="audit",
        method=method,
        request=lambda: _core._asking(bare, references, "digest"),
        parse=lambda response: _core._checked(response.verdict, references),
        timeout_s=core._timeout(method, None),
        settle=core._without_decision,
    )
