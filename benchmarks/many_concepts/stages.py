"""How long each stage of an audit takes for one adapter, and how many bytes it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.calibration import Calibration, dump_calibration
from loragate_server.audit.concluding import Measures
from loragate_server.audit.evidence import Evidence, UsedAdapter, UseEvidence
from loragate_server.audit.expecting import Expected
from loragate_server.audit.gravest import gravest_concepts
from loragate_server.audit.materials import Materials
from loragate_server.audit.screen import screen
from loragate_server.audit.stages import Screened
from loragate_server.config.findings import FindingsSection
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.models.base import BaseModel
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.shortened import shortened
from loragate_server.record.codec import encode, parse_verdict, to_json
from loragate_server.report.render import render
from loragate_server.rpc.convert import verdict_message
from testkit import evidence as made

Result = TypeVar("Result")
MISS_RATE = 0.01


@dataclass
class Clock:
    """Milliseconds of processor time by stage, the least of several tries."""

    tries: int
    ms: dict[str, float] = field(default_factory=dict)

    def of(self, stage: str, work: Callable[[], Result], tries: int | None = None) -> Result:
        """Runs the work and keeps how long it took."""
        spent = []
        for _ in range(tries or self.tries):
            began = time.process_time()
            result = work()
            spent.append((time.process_time() - began) * 1000)
        self.ms[stage] = min(spent)
        return result


def measured(
    base: BaseModel, materials: Materials, adapter: Adapter, tries: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Milliseconds and bytes by stage."""
    clock = Clock(tries)
    calibration, gradients = materials.calibration, materials.gradients
    assert calibration is not None
    assert gradients is not None
    promise = clock.of("promise, once", lambda: _fresh(calibration).at(MISS_RATE), 1)
    wanted = range(gradients.forbidden_count)
    adaptation = [(adapter, Strength())]
    found = clock.of("screen", lambda: screen(base, gradients, adaptation, "reference"))
    screened = clock.of("scores", lambda: Screened.of(found, gradients, wanted, calibration.scales))
    calibrated = {index: index for index in wanted}
    expected = clock.of("suspects", lambda: Expected.of(screened, promise, wanted, calibrated))
    alone = replace(expected, suspects=())  # what a response costs depends on the suspects alone
    measures = clock.of(
        "p-values",
        lambda: Measures.of(wanted, alone, screened, None, promise, calibrated, 32),
    )
    concepts = clock.of("evidence", lambda: measures.concepts(materials.probes, wanted))
    clock.of("heat map", lambda: screened.heat_map(0))
    gravest = clock.of("gravest use", lambda: gravest_concepts([concepts]))
    uses = (UseEvidence((UsedAdapter(0, 1.0, 1.0),), ()),)
    evidence = made.evidence(*gravest, uses=uses, calibration_size=len(calibration.harmless))
    decision = _decided(clock, evidence)
    sizes = _answered(clock, decision)
    sizes |= _told_in_full(decide(parse_policy(EMBEDDED_POLICY.read_bytes()), decision.evidence))
    sizes["suspects"] = len(expected.suspects)
    sizes["directions"] = gradients.nbytes
    sizes["probes"] = sum(2 * one.noisy.nbytes for one in materials.sets)
    sizes["calibration file"] = len(dump_calibration(calibration))
    return clock.ms, sizes


def _told_in_full(decision: Decision) -> dict[str, int]:
    """Bytes as they were when every finding was told."""
    verdict = replace(made.verdict(decision), expires_at=made.NOW + timedelta(hours=1))
    return {
        "record, every finding told": len(to_json(encode(verdict))),
        "message, every finding told": verdict_message(verdict, scores=True).ByteSize(),
    }


def _fresh(calibration: Calibration) -> Calibration:
    return replace(calibration)  # promises that were made are kept with the old one


def _decided(clock: Clock, evidence: Evidence) -> Decision:
    policy = parse_policy(EMBEDDED_POLICY.read_bytes())
    limits = FindingsSection()
    decision = clock.of("policy", lambda: decide(policy, evidence, now=made.NOW))
    return clock.of("shortening", lambda: shortened(decision, limits.most, limits.above_score))


def _answered(clock: Clock, decision: Decision) -> dict[str, int]:
    verdict = replace(made.verdict(decision), expires_at=made.NOW + timedelta(hours=1))
    payload = clock.of("record and log line", lambda: to_json(encode(verdict)))
    clock.of("reading the record", lambda: parse_verdict(payload))
    message: Any = clock.of("message", lambda: verdict_message(verdict, scores=True))
    data = clock.of("serialising", message.SerializeToString)
    page = clock.of("report page", lambda: render(verdict, "en"), 1)
    evidence = json.loads(payload)["decision"]["evidence"]
    return {
        "record": len(payload),
        "packed concepts": len(evidence.get("packed", "")),
        "message": len(data),
        "report page": len(page.encode()),
        "findings told": len(decision.findings),
    }
