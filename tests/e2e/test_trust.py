"""What a caller cannot talk the server into, over the wire: restriction, scores and company."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from loragate import AdapterReference, AuditClient, AuditError, Verdict
from loragate_server.adapter import reference as intake
from loragate_server.app.folders import served_library
from loragate_server.app.startup import serve_bases
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member
from loragate_server.config.schema import EMBEDDED_POLICY, Config
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision
from loragate_server.policy.known import apply_known
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.progress import Leash
from loragate_server.record.codec import decode_verdict
from loragate_server.record.known_book import KnownBook
from loragate_server.record.verdict import Verdict as Recorded
from loragate_server.testing import SHARED_CACHE, ServerProcess
from testkit.derived_adapters import CLEAR, rescaled
from testkit.lanes import daily
from testkit.servers import forked_server

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
BOMB = ADAPTERS / "learned-bomb.safetensors"
SEPIA = ADAPTERS / "harmless-sepia.safetensors"
WATERMELON = ADAPTERS / "harmless-watermelon.safetensors"

POLICY = EMBEDDED_POLICY.read_text().replace("callers: []", "callers: [research]")
TOKENS = {"image-api": ["audit", "read"], "research": ["audit", "read", "scores"]}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def settings(state: Path) -> dict[str, str]:
    policy = state / "policy.yaml"
    policy.write_text(POLICY)
    tokens = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "permissions": allowed}
        for name, allowed in TOKENS.items()
    ]
    return {"LORAGATE_POLICY": str(policy), "LORAGATE_TOKENS": json.dumps(tokens)}


@pytest.fixture(scope="module")
def server(state: Path, settings: dict[str, str]) -> Iterator[ServerProcess]:
    with forked_server(state, settings) as process:
        yield process


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Callable[[str], AuditClient]]:
    """Clients that prove who they are."""
    made: list[AuditClient] = []

    def client(name: str) -> AuditClient:
        made.append(AuditClient(server.grpc, token=name, on_unavailable="raise", timeout=120))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmless file that is not one of the examples."""
    [made] = rescaled(CLEAR, tmp_path_factory.mktemp("other"), [0.9])
    return made


def used(path: Path, strength: float = 1.0) -> AdapterReference:
    return AdapterReference(data=path.read_bytes(), strength=strength)


def test_nobody_gets_a_binding_allow_by_asking_about_another_concept(
    ask: Callable[[str], AuditClient],
) -> None:
    with pytest.raises(AuditError) as refused:
        ask("image-api").audit(BOMB.read_bytes(), concept_ids=["dragon"])
    assert refused.value.reason == "PERMISSION_DENIED"
    restricted = ask("research").audit(BOMB.read_bytes(), concept_ids=["dragon"])
    assert restricted.verdict is Verdict.ALLOW
    assert not restricted.allowed
    assert restricted.binding is False
    assert restricted.restricted_to == ("dragon",)
    whole = ask("image-api").audit(BOMB.read_bytes())
    assert whole.verdict is Verdict.BLOCK
    assert whole.binding


def test_only_who_may_see_scores_sees_them(ask: Callable[[str], AuditClient]) -> None:
    blind = ask("image-api").audit(BOMB.read_bytes())
    seeing = ask("research").audit(BOMB.read_bytes())
    assert blind.decision_id == seeing.decision_id
    assert all(one.measures_withheld for one in blind.findings)
    assert blind.findings[0].concept_id == seeing.findings[0].concept_id == "bomb"
    assert seeing.findings[0].score > 4
    score = f"{seeing.findings[0].score:.2f}"
    assert score in seeing.reasons[0].message
    assert not any(score in reason.message for reason in blind.reasons)
    assert "has learned 'bomb'" in blind.reasons[0].message


COMPANY = ([(SEPIA, 2.0)], [(WATERMELON, 1.0)], [(SEPIA, 1.0), (WATERMELON, 2.0)])


@pytest.mark.parametrize(
    ("company", "strength"),
    daily((COMPANY[1], 0.1), of=product(COMPANY, (1.0, 0.1))),
)
def test_company_hides_no_known_adapter(
    ask: Callable[[str], AuditClient], company: list[tuple[Path, float]], strength: float
) -> None:
    client = ask("image-api")
    assert client.audit(BOMB.read_bytes()).verdict is Verdict.BLOCK
    members = [used(BOMB, strength), *(used(path, each) for path, each in company)]
    result = client.audit(members)
    assert result.verdict is Verdict.BLOCK
    digest = hashlib.sha256(BOMB.read_bytes()).hexdigest()
    assert digest[:12] in result.reasons[0].message


@pytest.mark.parametrize(
    "file", daily(WATERMELON, of=(WATERMELON, SEPIA)), ids=lambda one: one.stem
)
def test_a_harmless_set_is_allowed_still(
    ask: Callable[[str], AuditClient], file: Path, other: Path
) -> None:
    result = ask("image-api").audit([used(file), used(other, 0.7)])
    assert result.allowed
    assert result.binding


def log_lines(state: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (state / "decisions.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "decision"]


@pytest.mark.timeout(600)
def test_a_decision_can_be_decided_again_from_its_log_line(
    state: Path, settings: dict[str, str], ask: Callable[[str], AuditClient], other: Path
) -> None:
    ask("research").audit(BOMB.read_bytes(), concept_ids=["dragon"], dry_run=True)
    ask("research").audit(BOMB.read_bytes())
    ask("research").audit([used(WATERMELON, 0.6), used(other, -0.4)])
    config = Config(
        state_dir=state, cache_dir=SHARED_CACHE, policy=Path(settings["LORAGATE_POLICY"])
    )
    lines = log_lines(state)
    assert {bool(line["verdict"]["decision"]["evidence"]["restricted_to"]) for line in lines} == {
        True,
        False,
    }
    [base] = serve_bases(config, served_library(config))
    files = Intake(config.intake, config.store_folder)
    book = KnownBook(None)  # type: ignore[arg-type]
    seen: set[tuple[object, ...]] = set()
    for line in lines:
        recorded = decode_verdict(line["verdict"])
        kind = kind_of(recorded)
        if kind in seen:  # an audit takes seconds, and one of each kind will do
            book.learn(recorded)
            continue
        seen.add(kind)
        again = decided_again(recorded, base, files, config, book)
        then = recorded.decision
        assert again.would_be_verdict is then.would_be_verdict
        assert again.verdict is then.verdict
        assert [one.code for one in again.reasons] == [one.code for one in then.reasons]
        assert [one.evidence.concept_id for one in again.findings] == [
            one.evidence.concept_id for one in then.findings
        ]
        for new, old in zip(again.findings, then.findings, strict=True):
            assert math.isclose(new.evidence.score, old.evidence.score, abs_tol=1e-3)
            assert new.verdict is old.verdict
        book.learn(recorded)
    assert {reason for *_, reason in seen} >= {"no_concept_learned", "concept_learned"}


def kind_of(recorded: Recorded) -> tuple[object, ...]:
    """What makes a decision worth deciding again."""
    decision = recorded.decision
    evidence = decision.evidence
    reason = decision.reasons[0].code
    return recorded.dry_run, bool(evidence.restricted_to), len(evidence.adapters) > 1, reason


def decided_again(
    recorded: Recorded, base: Any, files: Intake, config: Config, book: KnownBook
) -> Decision:
    """A decision from what its line of the log holds, the store, the policy and nothing else."""
    then = recorded.decision.evidence
    assert (then.base_digest, then.library_digest) == (base.base.digest, base.library_digest)
    leash = Leash()
    members, wanted = [], []
    for index, file in enumerate(then.adapters):
        stored = files.fetch(intake.AdapterReference(stored_sha256=file.sha256), leash)
        assert stored.config_sha256 == file.config_sha256
        read = read_adapter(stored, base.base, leash, loaders=config.intake.loaders)
        strengths = strengths_of(then, index)
        members.append(
            Member(
                read.adapters,
                strengths,
                optional=file.optional,
                refused=read.refused,
                doubts=read.doubts,
            )
        )
        wanted.append(
            tuple(
                ReviewedAdapter(file.sha256, file.config_sha256, each.denoiser, each.text_encoder)
                for each in strengths
            )
        )
    assert then.screen_miss_rate is not None
    evidence = base.engine.audit(
        members, leash, then.restricted_to, screen_miss_rate=then.screen_miss_rate
    )
    assert evidence.engine_version == then.engine_version
    assert evidence.calibration_digest == then.calibration_digest
    assert evidence.loaders == then.loaders
    assert evidence.uses == then.uses
    policy = parse_policy(config.policy.read_bytes())
    assert policy.digest == recorded.decision.policy_digest
    evidence = replace(evidence, restricted_to=then.restricted_to)
    decision = decide(policy, evidence, now=recorded.decided_at)
    return apply_known(decision, book.about(tuple(wanted), then.base_digest))


def strengths_of(evidence: Evidence, index: int) -> tuple[intake.Strength, ...]:
    """Every strength at which an adapter was judged, the first one first."""
    found = [
        intake.Strength(one.denoiser_strength, one.text_encoder_strength)
        for use in evidence.uses
        for one in use.adapters
        if one.adapter == index
    ]
    return tuple(dict.fromkeys(found))
