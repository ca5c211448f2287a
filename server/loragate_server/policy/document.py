"""The schema of the policy file: what may stand where. Closed, so that a typo is an error."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from loragate_server.severity import Severity

LineageVerdict = Literal["block", "review", "allow"]
VerdictOnBlock = Literal["block", "review"]
RemedyName = Literal["retrain", "replace_data", "quarantine", "withdraw_and_call_legal"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Degree = Annotated[float, Field(ge=0, le=100)]
Score = Annotated[float, Field(gt=0)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ThresholdsDocument(_Closed):
    """Thresholds; in a rule, what is absent is inherited and null switches a measure off."""

    block_score: Score | None = None
    block_p_value: Probability | None = None
    review_score: Score | None = None
    review_p_value: Probability | None = None
    review_own_p_value: Probability | None = None
    min_degree: Degree = 0.0
    block_degree_uncalibrated: Degree = 30.0
    on_block: VerdictOnBlock = "block"


class RuleDocument(ThresholdsDocument):
    """Thresholds for some concepts."""

    name: Text
    concepts: Annotated[list[Text], Field(min_length=1)] | None = None
    categories: Annotated[list[Text], Field(min_length=1)] | None = None
    severities: Annotated[list[Severity], Field(min_length=1)] | None = None
    remedy: RemedyName | None = None


class RemediesDocument(_Closed):
    """What to do about a learned concept, by its severity."""

    low: RemedyName = "retrain"
    medium: RemedyName = "replace_data"
    high: RemedyName = "quarantine"
    critical: RemedyName = "withdraw_and_call_legal"


class ListedAdapter(_Closed):
    """A digest on the allow or the deny list. `expires` is its last day, in UTC."""

    sha256: Sha256
    note: Text
    expires: date | None = None

    @property
    def ends_at(self) -> datetime | None:
        """The first moment at which the entry no longer counts."""
        if self.expires is None or self.expires == date.max:  # no day comes after that
            return None
        return datetime.combine(self.expires, time(), UTC) + timedelta(days=1)

    def active(self, now: datetime) -> bool:
        """Whether the entry counts at `now` (timezone-aware)."""
        return self.ends_at is None or now < self.ends_at


class AllowedAdapter(ListedAdapter):
    """An entry of the allow list: a file by itself, or with one `adapter_config.json` beside it.

    That sets scales, and so what the same file does.
    """

    config_sha256: Sha256 | None = None


class Limits(_Closed):
    """What a request may ask for."""

    strength_minimum: Annotated[float, Field(ge=-100, le=100)] = -20.0
    strength_maximum: Annotated[float, Field(ge=-100, le=100)] = 20.0
    max_adapters: Annotated[int, Field(ge=1, le=64)] = 8
    max_file_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 2 << 30


class RestrictDocument(_Closed):
    """Who may ask about some concepts only."""

    callers: list[Text] = []


class LineageDocument(_Closed):
    """The verdict for an adapter that comes from one on record as blocked."""

    copies: LineageVerdict = "review"
    parts: LineageVerdict = "review"


class PolicyDocument(_Closed):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1)]
    mode: Literal["enforce", "pilot"]
    defaults: ThresholdsDocument
    rules: list[RuleDocument] = []
    remedies: RemediesDocument = RemediesDocument()
    allow_sha256: list[AllowedAdapter] = []
    deny_sha256: list[ListedAdapter] = []
    limits: Limits = Limits()
    restrict: RestrictDocument = RestrictDocument()
    lineage: LineageDocument = LineageDocument()
    screen_miss_rate: Probability = 0.01
    when_inconclusive: Literal["inconclusive", "review", "block"] = "inconclusive"
    verdict_ttl_s: Annotated[float, Field(gt=0, le=366 * 86400)] = 86400.0


KNOWN_KEYS: tuple[str, ...] = tuple(
    sorted(
        {
            name
            for model in (
                PolicyDocument,
                RuleDocument,
                RemediesDocument,
                AllowedAdapter,
                Limits,
                RestrictDocument,
                LineageDocument,
            )
            for name in model.model_fields
        }
    )
)
"""Every key that the schema knows, to guess what a misspelt one was meant to be."""
