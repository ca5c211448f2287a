"""`decide_exactly`: makes a recorded decision again from its record and the stored bytes.

Nothing is written. What keeps the result from being the same to the last bit is found before an
audit is run, and named: other bytes, another base model, library, calibration, policy, version,
machine. What is then still different is a fault, or a record that was changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from loragate_server.adapter.reference import Kind, StoredFile, Strength
from loragate_server.app.folders import served_library
from loragate_server.app.startup import engine_builder, load_base, prepare_kernels, quiet_libraries
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import ENGINE_VERSION, CoverageEvidence, Evidence, Machine
from loragate_server.audit.packed import whole
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config
from loragate_server.gate.library import serve_base
from loragate_server.gate.measuring import asked_about, member_of
from loragate_server.gate.pipeline import NOT_AUDITED, decided, with_twins
from loragate_server.intake.header import read_header
from loragate_server.intake.reader import read_adapter
from loragate_server.intake.weights import read_weights
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision
from loragate_server.policy.listed import decide_listed
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy
from loragate_server.policy.shortened import shortened
from loragate_server.progress import Leash
from loragate_server.record.basis import AskedAdapter, Basis
from loragate_server.record.codec import encode
from loragate_server.record.verdict import Verdict

_TIMES = ("decision.evidence.stage_times_s",)


@dataclass(frozen=True)
class Exact:
    """What making a decision again came to.

    Attributes:
        prevented: what keeps it from being made exactly, one sentence each; then nothing was run.
        differences: where the new decision is not the recorded one: path, recorded, new.
    """

    prevented: tuple[str, ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()

    @property
    def same(self) -> bool:
        """Whether it is the recorded decision to the last bit."""
        return not self.prevented and not self.differences


def decide_exactly(config: Config, verdict: Verdict, policy_file: Path) -> Exact:
    """Makes a recorded decision again.

    Args:
        config: with the base model, library, calibration and store that the server has.
        verdict: as it was recorded.
        policy_file: the policy that it was made with.

    Raises:
        NoDecisionError, StartError: policy, library or base model cannot be opened at all.
        OSError: the policy cannot be read.
    """
    basis, evidence = verdict.basis, verdict.decision.evidence
    if basis is None:
        return Exact(("the record is of before everything was kept that a decision is made from",))
    try:
        whole(evidence)
    except ValueError as error:
        return Exact(
            (f"what is recorded of the concepts that are not told cannot be read: {error}",)
        )
    policy = parse_policy(policy_file.read_bytes(), policy_file.name)
    library = served_library(config)
    prevented = [*_other_settings(config, verdict, policy, library)]
    files, missing = _files(config, evidence, basis)
    if prevented + missing:
        return Exact((*prevented, *missing))
    audited = evidence.machine is not None
    if not audited:
        return Exact(differences=tuple(_listed_again(policy, verdict, basis)))
    if config.threads:
        torch.set_num_threads(config.threads)
    engine = _engine(config, library, evidence.base_model)
    if prevented := [*_other_engine(engine, evidence)]:
        return Exact(tuple(prevented))
    measured = _measure(engine, files, evidence, basis, policy)
    return Exact(differences=tuple(_differences(verdict, decided(policy, measured, basis))))


def _other_settings(
    config: Config, verdict: Verdict, policy: Policy, library: ConceptLibrary
) -> Iterator[str]:
    evidence = verdict.decision.evidence
    served = [entry.name for entry in config.base_models]
    if evidence.base_model not in served:
        yield f"base model {evidence.base_model} is not configured, only {', '.join(served)}"
    yield from _other("the policy", verdict.decision.policy_digest, policy.digest)
    yield from _other("the concept library", evidence.library_digest, library.digest)
    yield from _other("the engine version", evidence.engine_version, ENGINE_VERSION)
    if evidence.machine is not None:
        yield from _other("kernel_backend", evidence.kernel_backend, config.kernel_backend)


def _other_engine(engine: AuditEngine, evidence: Evidence) -> Iterator[str]:
    calibration = engine.materials.calibration
    found = "" if calibration is None else calibration.digest
    yield from _other("the base model's weights", evidence.base_digest, engine.base.digest)
    yield from _other("the calibration, or what was kept of it", evidence.calibration_digest, found)
    recorded, present = evidence.machine, engine.machine
    if recorded is not None:
        for one in fields(Machine):
            before, now = getattr(recorded, one.name), getattr(present, one.name)
            if isinstance(before, Mapping):
                for name in sorted({*before, *now}):
                    yield from _other(f"the version of {name}", before.get(name), now.get(name))
            else:
                yield from _other(_WORDS[one.name], before, now)


_WORDS = {
    "materials_digest": "what the probes and gradients hold",
    "device": "the device",
    "dtype": "the base model's dtype",
    "threads": "the number of threads (set `threads`)",
    "batch_rows": "the rows of a batch",
    "matmul_precision": "the precision of matrix products",
}


def _other(what: str, recorded: object, present: object) -> Iterator[str]:
    if recorded != present:
        yield f"{what} was {recorded or 'none'!s} and is {present or 'none'!s}"


def _files(config: Config, evidence: Evidence, basis: Basis) -> tuple[list[StoredFile], list[str]]:
    """The stored files of a decision, and a sentence for each that is not there."""
    found, missing = [], []
    for seen, asked in zip(evidence.adapters, basis.adapters, strict=True):
        path = config.store_folder / seen.sha256[:2] / f"{seen.sha256}.safetensors"
        try:
            data = path.read_bytes()
        except OSError as error:
            missing.append(f"the bytes of adapter {seen.sha256} are gone: {error.strerror}")
            continue
        if hashlib.sha256(data).hexdigest() != seen.sha256:
            missing.append(f"the stored bytes of adapter {seen.sha256} were changed")
            continue
        found.append(_stored(config, path, seen, asked))
    return found, missing


def _stored(config: Config, path: Path, seen: CoverageEvidence, asked: AskedAdapter) -> StoredFile:
    with path.open("rb") as file:
        header = read_header(file, seen.size_bytes, config.intake)
        weights = read_weights(file, header)
    return StoredFile(seen.sha256, seen.size_bytes, path, asked.config_json, weights)


def _engine(config: Config, library: ConceptLibrary, base_model: str) -> AuditEngine:
    quiet_libraries()
    [entry] = [entry for entry in config.base_models if entry.name == base_model]
    base = load_base(entry)
    prepare_kernels(config.kernel_backend, base.device)
    return serve_base(base, library, engine_builder(config)).engine


def _measure(
    engine: AuditEngine,
    files: list[StoredFile],
    recorded: Evidence,
    basis: Basis,
    policy: Policy,
) -> Evidence:
    leash, members = Leash(), []
    for file, seen, asked in zip(files, recorded.adapters, basis.adapters, strict=True):
        kind: Kind = "embedding" if seen.kind == "embedding" else "lora"
        read = read_adapter(file, engine.base, leash, kind=kind, loaders=basis.loaders)
        strengths = [Strength(one.denoiser, one.text_encoder) for one in asked.strengths]
        members.append(member_of(read, strengths, optional=seen.optional))
    evidence = engine.audit(
        members, leash, recorded.restricted_to, screen_miss_rate=policy.screen_miss_rate
    )
    adapters = tuple(
        replace(one, weights_sha256=file.weights_sha256)
        for one, file in zip(evidence.adapters, files, strict=True)
    )
    evidence = replace(evidence, adapters=adapters)
    # What else held these weights and was ruled out is known from the record alone.
    evidence = with_twins(evidence, [one.same_weights_as for one in recorded.adapters])
    return asked_about(evidence, recorded.restricted_to, policy.screen_miss_rate)


def _listed_again(policy: Policy, verdict: Verdict, basis: Basis) -> Iterator[tuple[str, str, str]]:
    """What differs of a decision that no audit was run for.

    Only the deny list decides without one, by digests alone. A record that tells of measurements
    as well, or of another decision than to deny, was changed: nothing here could repeat it.
    """
    evidence = verdict.decision.evidence
    now = basis.judged_at
    denied = decide_listed(policy, evidence.adapters, now).denied
    untouched = replace(evidence, concepts=(), packed="", layers=(), inconclusive=NOT_AUDITED)
    if not denied or evidence != untouched:
        listed = "the deny list has an adapter" if denied else "the deny list has no adapter of it"
        yield "decision.evidence.machine", "none, so no audit was run", listed
    yield from _differences(verdict, decide(policy, untouched, now=now))


def _differences(verdict: Verdict, decision: Decision) -> Iterator[tuple[str, str, str]]:
    limits = verdict.decision.left_out
    if limits is not None:
        decision = shortened(decision, limits.most, limits.above)
    recorded, again = (
        # of what is told in short, all numbers are compared
        encode(replace(verdict, decision=replace(one, evidence=whole(one.evidence))))
        for one in (verdict.decision, decision)
    )
    for path, before, now in _compared(recorded, again, ""):
        if not path.startswith(_TIMES):
            yield path, before, now


def _compared(before: Any, now: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{path}.{key}" if path else key
            yield from _compared(before.get(key), now.get(key), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _compared(one, other, f"{path}[{index}]")
    elif before != now or type(before) is not type(now):
        yield path, repr(before), repr(now)
