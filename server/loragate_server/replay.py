"""`replay`: decides recorded decisions again, from their evidence, under another policy.

Nothing is audited and nothing is written. Decisions are compared as if both policies bound their
callers, so a pilot can be replayed like anything else. What people or earlier decisions had said
about the files stands on both sides (`policy.reapply`). Dry runs are left out.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from ruamel.yaml import YAML

from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, VerdictKind
from loragate_server.policy.known import apply_known
from loragate_server.policy.lineage import apply_lineage
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy
from loragate_server.policy.reapply import overruled_by, reapplied
from loragate_server.policy.review import apply_rulings
from loragate_server.policy.source import Source
from loragate_server.record.codec import parse_verdict
from loragate_server.record.database import Database, Span, Stored
from loragate_server.record.paging import Place
from loragate_server.record.verdict import Verdict

PAGE_ROWS = 200
SWEPT_P_VALUES = (0.001, 0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Change:
    """A decision on which the two policies differ. `concept` is an id, empty without any."""

    decision_id: str
    adapters: tuple[str, ...]
    concept: str
    old: VerdictKind
    new: VerdictKind


@dataclass(frozen=True)
class Origin:
    """What decisions were measured with: only equal ones can be compared number by number."""

    library_digest: str
    engine_version: str


@dataclass
class Tally:
    """What a replay found, decision by decision.

    Attributes:
        pairs: recorded and new verdict to decisions.
        changes: the newest decisions that change, as many as were asked for.
        origins: decisions by what they were measured with, the most recent first.
        blocked: of `origins`, those that the new policy blocks.
        overruled: what overruled the recorded decisions, by the code of its reason.
        unmeasured: decisions whose evidence holds no concept; no policy can allow them.
        undecodable: ids of decisions whose payload cannot be read, oldest last.
        swept: setting of block_p_value to decisions that it blocks.
        oldest, newest: when the first and the last decision was made; None without any.
    """

    pairs: Counter[tuple[VerdictKind, VerdictKind]] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    origins: Counter[Origin] = field(default_factory=Counter)
    blocked: Counter[Origin] = field(default_factory=Counter)
    overruled: Counter[str] = field(default_factory=Counter)
    unmeasured: int = 0
    undecodable: list[str] = field(default_factory=list)
    swept: Counter[float] = field(default_factory=Counter)
    oldest: datetime | None = None
    newest: datetime | None = None
    _sets: set[bytes] = field(default_factory=set)

    @property
    def decisions(self) -> int:
        """Decisions that were decided again."""
        return self.pairs.total()

    @property
    def adapter_sets(self) -> int:
        """Different adapters, or sets of them, that the decisions are about."""
        return len(self._sets)

    @property
    def changed(self) -> int:
        """Decisions on which the policies differ, listed or not."""
        return sum(count for (old, new), count in self.pairs.items() if old is not new)

    def old(self, kind: VerdictKind) -> int:
        """Decisions that were recorded with a verdict."""
        return sum(count for (old, _), count in self.pairs.items() if old is kind)

    def new(self, kind: VerdictKind) -> int:
        """Decisions to which the new policy gives a verdict."""
        return sum(count for (_, new), count in self.pairs.items() if new is kind)

    def add(self, verdict: Verdict, decision: Decision, most_changes: int | None) -> None:
        """Counts one decision: as it was recorded, and decided again."""
        old, new = verdict.decision.would_be_verdict, decision.would_be_verdict
        evidence = verdict.decision.evidence
        shas = tuple(adapter.sha256 for adapter in evidence.adapters)
        origin = Origin(evidence.library_digest, evidence.engine_version)
        self.pairs[old, new] += 1
        self.origins[origin] += 1
        self.blocked[origin] += new is VerdictKind.BLOCK
        self.overruled.update(overruled_by(verdict.decision))
        self.unmeasured += not evidence.concepts
        self.newest = self.newest or verdict.decided_at
        self.oldest = verdict.decided_at
        # Digests, because millions of sets have to fit in memory.
        self._sets.add(hashlib.sha256("".join(sorted(shas)).encode()).digest()[:16])
        if old is not new and (most_changes is None or len(self.changes) < most_changes):
            change = Change(verdict.decision_id, shas, _top_concept(decision), old, new)
            self.changes.append(change)


def replay(
    database: Database,
    span: Span,
    policy: Policy,
    swept: Sequence[tuple[float, Policy]] = (),
    most_changes: int | None = None,
    step: Callable[[], None] = lambda: None,
    most_decisions: int | None = None,
) -> Tally:
    """Goes through the recorded decisions of a span, newest first.

    Args:
        database: of the server; only read.
        span: which decisions.
        policy: decides again; entries of its lists lapse as of now.
        swept: settings of block_p_value, each with the policy that has it.
        most_changes: changes to list; None for all.
        step: called once a decision, for progress.
        most_decisions: the newest so many only; None for all.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE.
    """
    now = datetime.now(UTC)
    tally = Tally()
    for stored in islice(stored_decisions(database, span), most_decisions):
        step()
        try:
            verdict = parse_verdict(stored.payload)
            again = _again(verdict, policy, now)
        except ValueError:
            tally.undecodable.append(stored.place.decision_id)
            continue
        tally.add(verdict, again, most_changes)
        for setting, variant in swept:
            would_be = _again(verdict, variant, now).would_be_verdict
            tally.swept[setting] += would_be is VerdictKind.BLOCK
    return tally


def stored_decisions(database: Database, span: Span) -> Iterator[Stored]:
    """The rows of a span, newest first, a page in memory at a time."""
    after: Place | None = None
    while page := database.history(PAGE_ROWS, after, span):
        yield from page
        after = page[-1].place


def with_block_p_value(data: bytes, setting: float) -> Policy:
    """A policy file with another `block_p_value` in its defaults, as if the line were edited.

    The file is varied and not the policy made from it, because rules inherit from the defaults.
    `review_p_value` is raised along, where it would be stricter to reach than blocking.

    Args:
        data: bytes of a valid policy file.
        setting: between 0 and 1.

    Raises:
        NoDecisionError: POLICY_INVALID; a rule contradicts the setting.
    """
    document = Source(data).value
    defaults = document["defaults"]
    defaults["block_p_value"] = setting
    if defaults.get("review_p_value") is not None:
        defaults["review_p_value"] = max(defaults["review_p_value"], setting)
    changed = io.BytesIO()
    YAML(typ="safe", pure=True).dump(document, changed)
    return parse_policy(changed.getvalue())


def other_engine(origins: Iterable[tuple[Origin, int]], present: str) -> int:
    """Decisions that another version of the engine than the present one measured."""
    return sum(count for origin, count in origins if origin.engine_version != present)


def _again(verdict: Verdict, policy: Policy, now: datetime) -> Decision:
    """What the policy says, and then what was on record about the files and what people had said.

    Records of before that was told say as much of it as the reasons show.
    """
    decided = decide(policy, verdict.decision.evidence, now=now)
    if (basis := verdict.basis) is None:
        return reapplied(verdict.decision, decided, policy.lineage)
    decided = apply_lineage(apply_known(decided, basis.known), basis.kin, policy.lineage)
    return apply_rulings(decided, basis.rulings, basis.judged_at)


def _top_concept(decision: Decision) -> str:
    """The concept that weighs most in a decision: the gravest one, of these the highest score."""
    order = list(VerdictKind)
    findings = decision.findings
    top = max(findings, key=lambda finding: order.index(finding.verdict), default=None)
    return top.evidence.concept_id if top else ""
