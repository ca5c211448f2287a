"""Between two pieces of an audit another one may be run: neither changes the other's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member
from loragate_server.concepts.probes import ProbePlan
from loragate_server.progress import Leash

Make = Callable[..., Any]


def measured(evidence: Evidence) -> tuple[Any, ...]:
    """Everything that was measured, without the times that it took."""
    assert not evidence.inconclusive
    return evidence.concepts, evidence.layers, evidence.heat_map


def test_an_audit_that_lets_others_pass_measures_exactly_what_it_does_alone(
    make_engine: Make, make_adapter: Make
) -> None:
    engine: AuditEngine = make_engine(plan=ProbePlan(pictures=1), batch_rows=8)
    one = [Member.of(make_adapter(seed=1), Strength())]
    other = [Member.of(make_adapter(seed=2), Strength())]
    alone, other_alone = engine.audit(one, Leash()), engine.audit(other, Leash())
    assert measured(alone) != measured(other_alone)
    passed: list[Evidence] = []

    def let_pass() -> None:
        hooks = [
            layer
            for component in engine.base.components.values()
            for layer in component.modules()
            if layer._forward_hooks or layer._forward_pre_hooks
        ]
        assert hooks == [], "a turn was given while the model was changed"
        if len(passed) < 3:
            passed.append(engine.audit(other, Leash()))

    leash = Leash()
    leash.turn = let_pass
    among = engine.audit(one, leash)
    assert len(passed) == 3
    assert measured(among) == measured(alone)
    assert all(measured(each) == measured(other_alone) for each in passed)


def test_a_turn_is_given_before_the_long_part_and_between_its_pieces(
    make_engine: Make, make_adapter: Make
) -> None:
    engine = make_engine(plan=ProbePlan(pictures=1), batch_rows=8)
    told: list[str] = []
    leash = Leash(report=lambda stage, _: told.append(stage))
    leash.turn = lambda: told.append("turn")
    engine.audit([Member.of(make_adapter(), Strength())], leash)
    first = told.index("turn")
    assert "response" not in told[:first]
    assert told.count("turn") >= 3
