"""A gate made of the real rooms, around an engine that the test holds by the hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.audit.coverage import coverage_evidence
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import (
    ENGINE_VERSION,
    Evidence,
    LayerProfile,
)
from loragate_server.audit.uses import Member
from loragate_server.config.gate import GateSection
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.gate import Gate
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.gate.observer import CacheResult, GateObserver
from loragate_server.gate.request import GateRequest
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.models import BaseModel
from loragate_server.policy.store import PolicyStore
from loragate_server.progress import Leash
from loragate_server.record.known_book import KnownBook
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.verdict import Verdict
from loragate_server.record.weights_book import WeightsBook
from testkit.adapter_files import ATTENTION, adapter_state, donor, lora
from testkit.evidence import concept, evidence
from testkit.tiny_models import tiny_base

POLICY = (
    "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"
    'restrict:\n  callers: ["*"]\n'
)
LIBRARY = "c" * 64
PATIENCE_S = 20.0


class HeldEngine(AuditEngine):
    """Audits for as long as the test wants, then says what the test wants."""

    calibrated = False
    looks_first = False
    knows_sizes = False

    def __init__(self, base: BaseModel, library_digest: str = LIBRARY) -> None:
        self.base = base
        self.library_digest = library_digest
        self.score = 0.0
        self.error: BaseException | None = None
        self.audits = 0
        self.miss_rates: list[float] = []
        self.ended = 0
        self.started = threading.Semaphore(0)
        self._may_go = threading.Event()
        self._may_go.set()

    @property
    def p_value(self) -> float:
        return 1e-9 if self.score > 4 else 0.5

    def hold(self) -> None:
        self._may_go.clear()

    def let_go(self) -> None:
        self._may_go.set()

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_S)

    def audit(
        self,
        members: Sequence[Member],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
    ) -> Evidence:
        self.audits += 1
        self.miss_rates.append(screen_miss_rate)
        leash.report("response", 0.0)
        self.started.release()
        try:
            until = time.monotonic() + PATIENCE_S
            while not self._may_go.wait(0.002):
                leash.check()
                assert time.monotonic() < until, "the test never let the engine go"
            if self.error is not None:
                raise self.error
            leash.report("response", 1.0)
            return self._evidence(members, concept_ids or ("cat", "dog"))
        finally:
            self.ended += 1

    def _evidence(self, members: Sequence[Member], concept_ids: Sequence[str]) -> Evidence:
        measured = {
            "degree": 10.0,
            "error_change_by_time": {},
            "family_p_value": self.p_value,
        }
        return evidence(
            *(
                concept(self.score, self.p_value, concept_id=one, concept_name=one, **measured)
                for one in concept_ids
            ),
            adapters=tuple(coverage_evidence(member) for member in members),
            layers=(LayerProfile("mid", 0.1, 0.9, 1.0),),
            base_model=self.base.name,
            base_digest=self.base.digest,
            library_digest=self.library_digest,
            engine_version=ENGINE_VERSION,
            neutral_count=8,
            stage_times_s={"response": 0.0},
        )


@dataclass
class Counts(GateObserver):
    """Counts what the gate tells."""

    failures: Counter[ErrorReason] = field(default_factory=Counter)
    cached: Counter[CacheResult] = field(default_factory=Counter)
    answers: list[Verdict] = field(default_factory=list)
    shared: int = 0
    held_bytes: list[int] = field(default_factory=lambda: [0])
    waits_s: list[float] = field(default_factory=list)

    def decision(self, verdict: Verdict) -> None:
        self.answers.append(verdict)

    def failure(self, reason: ErrorReason) -> None:
        self.failures[reason] += 1

    def cache(self, result: CacheResult) -> None:
        self.cached[result] += 1

    def shared_flight(self) -> None:
        self.shared += 1

    def inflight_bytes(self, count: int) -> None:
        self.held_bytes.append(count)

    def queue_wait_seconds(self, seconds: float) -> None:
        self.waits_s.append(seconds)


@dataclass
class House:
    """A gate and everything around it."""

    gate: Gate
    engine: HeldEngine
    base: BaseModel
    counts: Counts
    policies: PolicyStore
    policy_file: Path
    recorder: Recorder
    book: ReviewBook
    known: KnownBook
    lineage: LineageBook
    weights: WeightsBook
    log_path: Path
    root: Path
    files: Callable[[int], bytes]

    def reference(self, seed: int = 0, **changes: Any) -> AdapterReference:
        """A reference to the adapter of this seed, on disk."""
        path = self.root / f"{seed}.safetensors"
        if not path.exists():
            path.write_bytes(self.files(seed))
        return AdapterReference(**{"path": str(path), **changes})

    def request(self, *seeds: int, strength: float = 1.0, **changes: Any) -> GateRequest:
        """A question about the adapters of these seeds (0 when none is given)."""
        strengths = Strength(strength, strength)
        found = tuple(self.reference(seed, strength=strengths) for seed in seeds or (0,))
        return GateRequest(**{"adapters": found, **changes})

    def inline(self, seed: int = 0, **changes: Any) -> GateRequest:
        """A question that comes with its bytes."""
        reference = AdapterReference(inline_bytes=self.files(seed))
        return GateRequest(**{"adapters": (reference,), **changes})

    def ask(self, request: GateRequest | None = None, **leash: Any) -> asyncio.Task[Verdict]:
        """Asks without waiting for the answer."""
        return asyncio.ensure_future(self.gate.decide(request or self.request(), Leash(**leash)))

    def serve(self, library_digest: str = LIBRARY, *concept_ids: str) -> None:
        """Swaps in a library."""
        self.engine.library_digest = library_digest
        ids = frozenset(concept_ids or ("cat", "dog"))
        self.gate.bases.swap(
            [ServedBase(self.base.name, self.base, self.engine, library_digest, ids)]
        )

    def rule(self, text: str) -> None:
        """Puts another policy in force."""
        self.policy_file.write_text(text)
        assert self.policies.reload(), self.policies.last_error

    def recorded(self) -> int:
        """How many decisions are in the database, and as many in the log."""
        found = len(self.recorder.list(page_size=100)[0])
        lines = self.log_path.read_text().splitlines()
        assert sum('"decision_id"' in line for line in lines) >= found
        return found


async def settle(condition: Callable[[], bool]) -> None:
    """Lets the loop run until the condition holds."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "what the test waits for never came"
        await asyncio.sleep(0.001)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return settle


@pytest.fixture(scope="session")
def tiny() -> BaseModel:
    return tiny_base("sd")


@pytest.fixture(scope="session")
def files() -> Callable[[int], bytes]:
    """The bytes of a real adapter for `tiny`, another one for every seed."""
    module, _ = donor("sd", "unet", lora(ATTENTION))
    state = {f"unet.{name}": value for name, value in adapter_state(module).items()}

    def make(seed: int) -> bytes:
        generator = torch.Generator().manual_seed(seed)
        own: dict[str, Tensor] = {
            name: 0.2 * torch.randn(value.shape, generator=generator)
            for name, value in state.items()
        }
        return save(own, {"format": "pt"})

    return make


@pytest.fixture
async def house(
    tmp_path: Path, tiny: BaseModel, files: Callable[[int], bytes]
) -> AsyncIterator[Callable[..., House]]:
    """Makes gates; closes them, and checks that none still holds bytes."""
    made: list[House] = []

    def make(**settings: int) -> House:
        folder = tmp_path / f"house{len(made)}"
        (root := folder / "root").mkdir(parents=True)
        policy_file = folder / "policy.yaml"
        policy_file.write_text(POLICY)
        policies = PolicyStore(policy_file)
        log_path = folder / "decisions.jsonl"
        recorder = Recorder(f"sqlite:///{folder}/audits.db", log_path)
        book = ReviewBook(recorder.database)
        book.refresh()
        known = KnownBook(recorder.database)
        lineage = LineageBook(recorder.database, known)
        known.refresh()
        weights = WeightsBook(recorder.database, lambda: book.rejected | policies.current.denied)
        weights.refresh()
        engine, counts = HeldEngine(tiny), Counts()
        gate = Gate(
            settings=GateSection(**settings),
            intake=Intake(IntakeSection(roots=(root,)), folder / "store"),
            bases=BaseRegistry(tiny.name),
            policies=policies,
            recorder=recorder,
            read=read_adapter,
            observer=counts,
            reviews=book,
            known=known,
            lineage=lineage,
            weights=weights,
        )
        found = House(
            *(gate, engine, tiny, counts, policies, policy_file, recorder, book, known, lineage),
            *(weights, log_path, root, files),
        )
        found.serve()
        made.append(found)
        return found

    yield make
    for one in made:
        one.engine.let_go()
        drained = await one.gate.drain(PATIENCE_S)
        await one.gate.close()
        with suppress(Exception):
            one.recorder.close()
        assert drained
        assert one.counts.held_bytes[-1] == 0
