"""What the service answers, as frozen dataclasses free of wire types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from loragate.errors import AuditError
from loragate.reference import AdapterKind


class Verdict(StrEnum):
    """What to do with the adapter. A value that this SDK does not know is read as `BLOCK`."""

    ALLOW = "ALLOW"
    REVIEW = "REVIEW"
    INCONCLUSIVE = "INCONCLUSIVE"
    BLOCK = "BLOCK"


class Mode(StrEnum):
    """Whether the verdict binds. Unknown values are read as `ENFORCE`."""

    ENFORCE = "ENFORCE"
    PILOT = "PILOT"


class Remedy(StrEnum):
    """What the operator should do about a finding, in order of gravity."""

    NONE = "NONE"
    RETRAIN = "RETRAIN"
    REPLACE_DATA = "REPLACE_DATA"
    QUARANTINE = "QUARANTINE"
    WITHDRAW_AND_CALL_LEGAL = "WITHDRAW_AND_CALL_LEGAL"


class Severity(StrEnum):
    """How bad it is to learn a concept. Unknown values are read as `CRITICAL`."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


class ConceptRole(StrEnum):
    """What a concept is for in the library."""

    FORBIDDEN = "FORBIDDEN"
    NEUTRAL = "NEUTRAL"


class MeasureKind(StrEnum):
    """What of a finding is compared with a limit. Unknown values are read as `UNKNOWN`."""

    UNKNOWN = "UNKNOWN"
    LIBRARY_P_VALUE = "LIBRARY_P_VALUE"
    OWN_P_VALUE = "OWN_P_VALUE"
    SCORE = "SCORE"
    DEGREE = "DEGREE"


@dataclass(frozen=True)
class Measured:
    """A measure beside a limit of the policy.

    Attributes:
        threshold: of p-values the highest, of a score or degree the lowest that reaches it.
    """

    kind: MeasureKind
    value: float
    threshold: float


@dataclass(frozen=True)
class Reason:
    """One reason of a verdict: a stable code and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Finding:
    """What the audit measured for one concept.

    Attributes:
        score: distance from the neutral bank on the same adapter, in standard deviations.
        p_value: probability of such a score for this concept, had it not been learned.
        degree: degree of penetration, 0 to 100.
        verdict: what the policy decided for this concept alone.
        adapter_sha256s: the adapters that it speaks of: one that was judged alone, or several
            together; empty where an older service does not say.
        use: in words, at which strengths, as which loaders read them.
        measures_withheld: score, p-value and degree are 0 because the caller may not see them.
        decided_by: what reached a limit of the policy or, where the verdict is ALLOW, the limit
            that it would reach first; None where there is none, and where an older service or a
            withheld measure does not say.
        library_p_value: probability that the most suspicious concept of a harmless adapter looks
            as suspicious; None likewise.
    """

    concept_id: str
    concept_name: str
    category: str
    severity: Severity
    score: float
    p_value: float
    degree: float
    verdict: Verdict
    remedy: Remedy
    adapter_sha256s: tuple[str, ...] = ()
    use: str = ""
    measures_withheld: bool = False
    decided_by: Measured | None = None
    library_p_value: float | None = None


@dataclass(frozen=True)
class KeyCoverage:
    """How much of a file the audit understood; `unmapped` names at most 20 tensors."""

    weight_tensors: int
    mapped_tensors: int
    matched_modules: int
    unmapped: tuple[str, ...]


@dataclass(frozen=True)
class AuditedAdapter:
    """One audited adapter; `sha256` is of the very bytes that were audited, as a file of `kind`.

    `declared_name` is how the recorded question called it. Nobody has checked that.
    """

    sha256: str
    size_bytes: int
    format: str
    strength: float
    text_encoder_strength: float
    coverage: KeyCoverage
    kind: AdapterKind = AdapterKind.LORA
    declared_name: str = ""


@dataclass(frozen=True)
class Digests:
    """What a verdict is bound to, each a lower-case hexadecimal sha256."""

    base_model: str = ""
    library: str = ""
    policy: str = ""


@dataclass(frozen=True)
class Progress:
    """How far an audit has come: a stage and the share of it that is done, 0 to 1."""

    stage: str
    fraction: float


SERVICE_UNAVAILABLE = "service_unavailable"
"""Code of the reason of a result that the SDK made because no decision could be had."""


@dataclass(frozen=True)
class LeftOut:
    """Concepts that were let through and are not told one by one.

    Attributes:
        count: how many.
        highest_score: among them; None where the service withholds measured numbers.
    """

    count: int
    highest_score: float | None = None


@dataclass(frozen=True)
class AuditResult:
    """A decision about adapters that will be active together.

    Attributes:
        verdict: what to do; `allowed` is the short form.
        decision_id: id in the decision log; empty when the service gave no decision and the
            verdict follows from `on_unavailable`.
        would_be_verdict: in pilot mode what the policy decided, otherwise equal to `verdict`.
        reasons: gravest first.
        findings: highest score first.
        left_out: what is known of further findings; None where `findings` are all of them.
        adapters: in the order of the request.
        stage_times_s: stage name to seconds.
        expires_at: when to ask again; None when there was no decision.
        dry_run: whether it was asked for as a dry run.
        binding: whether a load may rest on it: not on a dry run, nor on an answer about some
            concepts only. Of a recorded decision also False where an older service does not say.
        restricted_to: the concepts that the question was restricted to; empty for all.
        loaders: the loaders that it speaks for; empty where an older service does not say.
        signed: the verdict as a signed envelope, to be kept and shown elsewhere; empty where the
            service signs nothing. `loragate.signed` reads it.
        signed_by: id of the trusted key that has signed it; empty where no signature was required,
            and so none was looked at.
        clock_skew_s: how long after `expires_at` the clock of this machine may still be right.
        audited_bytes: the bytes that were audited, where the SDK read them. Load exactly these.
        cause: the error because of which there is no decision.
    """

    verdict: Verdict
    decision_id: str = ""
    mode: Mode = Mode.ENFORCE
    would_be_verdict: Verdict = Verdict.BLOCK
    remedy: Remedy = Remedy.NONE
    reasons: tuple[Reason, ...] = ()
    findings: tuple[Finding, ...] = ()
    adapters: tuple[AuditedAdapter, ...] = ()
    base_model: str = ""
    digests: Digests = Digests()
    engine_version: str = ""
    kernel_backend: str = ""
    stage_times_s: Mapping[str, float] = field(default_factory=dict)
    decided_at: datetime | None = None
    expires_at: datetime | None = None
    cached: bool = False
    dry_run: bool = False
    binding: bool = False
    restricted_to: tuple[str, ...] = ()
    loaders: tuple[str, ...] = ()
    signed: bytes = field(default=b"", repr=False)
    signed_by: str = ""
    clock_skew_s: float = field(default=0.0, repr=False, compare=False)
    audited_bytes: bytes | None = field(default=None, repr=False, compare=False)
    cause: AuditError | None = field(default=None, repr=False, compare=False)
    left_out: LeftOut | None = None

    @property
    def allowed(self) -> bool:
        """Whether the adapters may be loaded now: a binding `ALLOW` that has not run out.

        Or, without a decision, whether `on_unavailable` lets them in.
        """
        return self.lets_in()

    def lets_in(self, *, review: bool = False, now: datetime | None = None) -> bool:
        """As `allowed`; every integration asks here.

        Args:
            review: whether `REVIEW` lets in as well.
            now: timezone-aware; None for the present time.
        """
        if self.verdict is not Verdict.ALLOW and not (review and self.verdict is Verdict.REVIEW):
            return False
        if self.cause is not None:
            return self.verdict is Verdict.ALLOW  # by the choice of whoever set `on_unavailable`
        late = (now or datetime.now(UTC)) - timedelta(seconds=self.clock_skew_s)
        return self.decided and self.binding and not self.has_expired(late)

    @property
    def only_by_pilot(self) -> bool:
        """Whether it lets in only because the policy observes: enforcing, it would not."""
        return self.mode is Mode.PILOT and self.would_be_verdict is not Verdict.ALLOW

    @property
    def decided(self) -> bool:
        """Whether the service decided; False when the verdict follows from `on_unavailable`."""
        return bool(self.decision_id)

    @property
    def coverage(self) -> tuple[KeyCoverage, ...]:
        """Key coverage of each adapter, in the order of the request."""
        return tuple(adapter.coverage for adapter in self.adapters)

    @property
    def top_finding(self) -> Finding | None:
        """The finding with the highest score, or None without findings."""
        return self.findings[0] if self.findings else None

    def has_expired(self, now: datetime | None = None) -> bool:
        """Whether the service wants to be asked again; True for a result without a decision."""
        return self.expires_at is None or (now or datetime.now(UTC)) >= self.expires_at


@dataclass(frozen=True)
class Concept:
    """One entry of the concept library.

    Attributes:
        concept_id: lower-case letters, digits and hyphens; at most 64.
        category: for example "likeness", "character", "harm" or "brand".
        prompts: words that a prompt would use for it.
        picture_count: number of reference pictures; set by the service.
        picture_hands: who made each picture, or where, in their order: an artist, a shoot, a
            source; empty: nobody sorted them.
    """

    concept_id: str
    name: str
    category: str
    severity: Severity
    role: ConceptRole = ConceptRole.FORBIDDEN
    prompts: tuple[str, ...] = ()
    picture_count: int = 0
    picture_hands: tuple[str, ...] = ()
