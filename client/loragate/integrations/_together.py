"""One verdict over adapters whose bytes are at hand, however large they are together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loragate.blocked import AdapterBlocked
from loragate.client import AuditClient
from loragate.errors import ADAPTER_NOT_STORED, AuditError
from loragate.reference import INLINE_LIMIT_BYTES, AdapterReference, AuditOptions, checked_digest
from loragate.results import AuditResult

OnReview = Literal["block", "allow"]


def lets_review_in(on_review: OnReview) -> bool:
    """Whether a verdict of REVIEW is enough to load.

    Raises:
        ValueError: the choice is neither "block" nor "allow".
    """
    if on_review not in ("block", "allow"):
        raise ValueError(f"on_review must be 'block' or 'allow', not {on_review!r}.")
    return on_review == "allow"


class Gatekeeper:
    """Asks about adapters that will be active together, and refuses what may not be loaded.

    Args:
        client: asks the service; its `on_unavailable` decides when there is no answer.
        base_model: name under which the service knows the model; empty for its default.
        base_digest: digest that the model must have there; None to accept any.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.
        loader: what will load the adapters, as the service names loaders.

    Raises:
        ValueError: `on_review` is neither "block" nor "allow", or `base_digest` is no sha256.
    """

    def __init__(
        self,
        client: AuditClient,
        *,
        base_model: str = "",
        base_digest: str | None = None,
        on_review: OnReview = "block",
        loader: str = "",
    ) -> None:
        self._client = client
        self._review = lets_review_in(on_review)
        self._options: AuditOptions = {
            "base_model": base_model,
            "expected_base_digest": checked_digest(base_digest),
            "loader": loader,
        }

    def admit(self, name: str, references: Sequence[AdapterReference]) -> AuditResult:
        """Returns the decision where it lets the adapters in.

        Raises:
            AdapterBlocked: it does not.
            AuditError: no decision exists.
        """
        result = audit_together(self._client, references, self._options, review=self._review)
        if not self.still_holds(result):
            raise AdapterBlocked(name, result)
        return result

    def still_holds(self, result: AuditResult) -> bool:
        """Whether a decision that `admit` returned lets in now, too; else ask again."""
        return result.lets_in(review=self._review)


def audit_together(
    client: AuditClient,
    references: Sequence[AdapterReference],
    options: AuditOptions | None = None,
    *,
    review: bool = False,
) -> AuditResult:
    """As `client.audit`, also for several adapters that do not fit into one message.

    The service is asked by digests. What it does not hold is audited by itself first, which
    stores it; an adapter that is not let in alone is not asked about in company.
    """
    asked = options or {}
    size = sum(len(reference.data or b"") for reference in references)
    if len(references) == 1 or size <= INLINE_LIMIT_BYTES:
        return client.audit(references, **asked)
    try:
        return client.audit_stored(references, **asked)
    except AuditError as error:
        if error.reason != ADAPTER_NOT_STORED:
            raise
    for reference in references:
        alone = client.audit(reference, **asked)
        if not alone.decided or not alone.lets_in(review=review):
            return alone
    return client.audit_stored(references, **asked)
