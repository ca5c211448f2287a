"""Tiny base models, probes of random pictures, and adapters of random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import Kind, StoredFile
from loragate_server.app.folders import served_library
from loragate_server.app.startup import serve_bases
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.uses import Member
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import ConceptGradients, assemble, compute
from loragate_server.concepts.probes import ProbePlan, ProbeSet
from loragate_server.config.schema import EMBEDDED_POLICY, Config
from loragate_server.gate.bases import ServedBase
from loragate_server.intake.reader import read_adapter
from loragate_server.models import BaseModel
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision
from loragate_server.policy.parse import parse_policy
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE
from testkit.tiny_models import tiny_base
from tests.server.audit.steps import PLAN

EXAMPLES = Path(__file__).parents[3] / "examples"
FORBIDDEN = ("cat", "dog", "fox")
NEUTRAL = tuple(f"neutral-{index}" for index in range(8))
MakeAdapter = Callable[..., Adapter]
MakeProbes = Callable[..., ProbeSet]
MakeGradients = Callable[..., ConceptGradients]
MakeEngine = Callable[..., AuditEngine]


_made: list[BaseModel] = []


@cache
def _base(family: str) -> BaseModel:
    _made.append(tiny_base(family))
    return _made[-1]


@pytest.fixture(scope="session")
def base_of() -> Callable[[str], BaseModel]:
    """Base models by family; no test may change them, and `no_hooks_are_left` sees to it."""
    return _base


@pytest.fixture(scope="session")
def base() -> BaseModel:
    return _base("sd")


@pytest.fixture(scope="session")
def make_probes() -> MakeProbes:
    """Probes of three forbidden and eight neutral concepts with random pictures."""

    def make(base: BaseModel, plan: ProbePlan | None = None) -> ProbeSet:
        plan = plan or ProbePlan(pictures=2, times=(0.2, 0.6))
        concepts = tuple(
            Concept(name, name.title(), "animal", "high", role)
            for role, names in (("forbidden", FORBIDDEN), ("neutral", NEUTRAL))
            for name in names
        )
        generator = torch.Generator().manual_seed(11)
        height, width = base.picture_size
        rows = len(concepts) * plan.rows
        pictures = torch.rand(rows, 3, height, width, generator=generator) * 2 - 1
        times = torch.tensor(plan.times).repeat(plan.pictures)
        with torch.inference_mode():
            latents = base.encode_pictures(pictures)
            noise = torch.randn(latents.shape, generator=generator)
            noisy = base.add_noise(latents, noise, times.repeat(len(concepts)))
            target = base.target(latents, noise, times.repeat(len(concepts)))
        shape = (len(concepts), plan.rows, *latents.shape[1:])
        return ProbeSet(
            base.digest,
            "1" * 64,
            plan,
            concepts,
            noisy.reshape(shape),
            target.reshape(shape),
            times,
        )

    return make


@pytest.fixture(scope="session")
def gradients_of(make_probes: MakeProbes) -> MakeGradients:
    """Concept gradients of a base model, by `PLAN`."""
    made: dict[str, ConceptGradients] = {}

    def gradients(base: BaseModel) -> ConceptGradients:
        if base.digest not in made:
            probes = [make_probes(base, plan) for plan in PLAN.plans]
            stored = compute(base, probes, PLAN)
            made[base.digest] = assemble(base, probes, PLAN, stored)
        return made[base.digest]

    return gradients


@pytest.fixture(scope="session")
def gradients(gradients_of: MakeGradients, base: BaseModel) -> ConceptGradients:
    made: ConceptGradients = gradients_of(base)
    return made


@pytest.fixture(scope="session")
def make_engine(base: BaseModel, make_probes: MakeProbes) -> MakeEngine:
    def make(
        base: BaseModel = base, plan: ProbePlan | None = None, **settings: object
    ) -> AuditEngine:
        return AuditEngine(base, make_probes(base, plan), AuditSettings(**settings))

    return make


@pytest.fixture(scope="session")
def engine(make_engine: MakeEngine) -> AuditEngine:
    return make_engine()


@pytest.fixture(scope="session")
def make_adapter(base: BaseModel) -> MakeAdapter:
    """Adapters of attention layers: `size` 0 changes nothing, 0.2 changes much."""

    def make(
        base: BaseModel = base,
        *,
        size: float = 0.2,
        seed: int = 0,
        rank: int = 3,
        components: Iterable[str] | None = None,
        ending: tuple[str, ...] = ("to_q", "to_v", "to_out.0", "q_proj", "v_proj", "q", "v"),
        unmapped: tuple[str, ...] = (),
    ) -> Adapter:
        generator = torch.Generator().manual_seed(seed)
        deltas = {}
        for (component, name), module in base.adaptable_modules().items():
            wanted = components is None or component in components
            if not (wanted and name.endswith(ending) and isinstance(module, nn.Linear)):
                continue
            down = torch.randn(rank, module.in_features, generator=generator)
            up = torch.randn(module.out_features, rank, generator=generator) * size
            deltas[ModuleRef(component, name)] = LowRank(down, up, 0.5)
        count = 2 * len(deltas)
        coverage = KeyCoverage(count + len(unmapped), count, unmapped, len(deltas))
        return Adapter(f"{seed:064x}", 1000, "test/lora", deltas, coverage, {})

    return make


@pytest.fixture(autouse=True)
def no_hooks_are_left() -> Iterable[None]:
    """Whatever a test does, no base model keeps a hook of this project."""
    yield
    for base in _made:
        for component in base.components.values():
            for module in component.modules():
                hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
                assert not [hook for hook in hooks if hook.__module__.startswith("loragate")]


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> ServedBase:
    """The embedded base model with its library and calibration, as a server has it."""
    config = Config(state_dir=tmp_path_factory.mktemp("state"), cache_dir=SHARED_CACHE)
    [one] = serve_bases(config, served_library(config))
    return one


@pytest.fixture(scope="session")
def decided(embedded: ServedBase) -> Callable[..., Decision]:
    """The default policy's decision over members that may be active together."""
    policy = parse_policy(EMBEDDED_POLICY.read_bytes())

    def run(*members: Member) -> Decision:
        return decide(policy, embedded.engine.audit(members, Leash()))

    return run


@pytest.fixture(scope="session")
def example(embedded: ServedBase) -> Callable[[str], Adapter]:
    """An adapter of the examples by its name, or another file of them by its path there."""

    def read(name: str) -> Adapter:
        path = EXAMPLES / f"{name if '/' in name else f'adapters/{name}'}.safetensors"
        kind: Kind = "embedding" if name.startswith("embeddings/") else "lora"
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        stored = StoredFile(sha256, path.stat().st_size, path)
        loaders = ("diffusers",)
        return read_adapter(stored, embedded.base, kind=kind, loaders=loaders).adapters[0]

    return read
