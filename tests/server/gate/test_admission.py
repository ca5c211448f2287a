"""What is refused before any byte is read, and files that are refused afterwards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.bases import ServedBase
from loragate_server.progress import Leash
from testkit.tiny_models import WIDTH

POLICY = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"


async def refused(here: Any, request: Any) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as error:
        await here.ask(request)
    assert here.engine.audits == 0
    assert here.recorded() == 0
    assert here.counts.failures == {error.value.reason: sum(here.counts.failures.values())}
    assert here.counts.answers == []
    assert error.value.remedy
    return error.value


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, 20.01, -20.01, 1e300])
async def test_a_strength_that_cannot_be_used_is_refused(
    house: Callable[..., Any], strength: float
) -> None:
    here = house()
    for field, value in (
        ("denoiser", Strength(denoiser=strength)),
        ("text_encoder", Strength(text_encoder=strength)),
    ):
        good, bad = here.reference(0), here.reference(1, strength=value)
        error = await refused(here, here.request(adapters=(good, bad)))
        assert error.reason is ErrorReason.STRENGTH_INVALID
        assert error.metadata == {
            "strength": f"{strength:g}",
            "minimum": "-20",
            "maximum": "20",
            "field": f"adapters[1].{field}_strength",
        }


@pytest.mark.parametrize("strength", [-20.0, -0.0, 0.0, 20.0])
async def test_a_strength_at_the_edge_is_taken(house: Callable[..., Any], strength: float) -> None:
    here = house()
    verdict = await here.ask(here.request(strength=strength))
    assert verdict.decision.evidence.adapters[0].denoiser_strength == strength


async def test_the_range_of_strengths_is_the_policys(house: Callable[..., Any]) -> None:
    here = house()
    here.rule(POLICY + "limits:\n  strength_minimum: 0\n  strength_maximum: 0.5\n")
    error = await refused(here, here.request(strength=1.0))
    assert error.metadata["maximum"] == "0.5"


async def test_an_unknown_base_model_is_refused(house: Callable[..., Any]) -> None:
    here = house()
    error = await refused(here, here.request(base_model="sdxl" * 100))
    assert error.reason is ErrorReason.BASE_MODEL_UNKNOWN
    assert error.metadata["known"] == here.base.name
    assert len(error.message) < 200


async def test_the_named_base_model_is_used(house: Callable[..., Any]) -> None:
    here = house()
    await here.ask(here.request())
    assert (await here.ask(here.request(base_model=here.base.name))).cached


async def test_an_unknown_concept_is_refused(house: Callable[..., Any]) -> None:
    here = house()
    error = await refused(here, here.request(concept_ids=("cat", "unicorn")))
    assert error.reason is ErrorReason.CONCEPT_UNKNOWN
    assert error.metadata == {"concept_id": "unicorn"}


async def test_a_concept_that_was_removed_while_the_question_waited_is_refused(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.engine.hold()
    running = here.ask(here.request(0))
    await here.engine.has_started()
    waiting = here.ask(here.request(1, concept_ids=("dog",)))
    await until(lambda: here.gate.worker.depth == 1)
    here.serve("d" * 64, "cat")
    here.engine.let_go()
    with pytest.raises(NoDecisionError) as error:
        await waiting
    assert error.value.reason is ErrorReason.CONCEPT_UNKNOWN
    await running
    assert here.engine.audits == 1


async def test_an_empty_library_decides_nothing(house: Callable[..., Any]) -> None:
    here = house()
    empty = ServedBase(here.base.name, here.base, here.engine, "d" * 64, frozenset())
    here.gate.bases.swap([empty])
    assert (await refused(here, here.request())).reason is ErrorReason.LIBRARY_EMPTY


async def test_nothing_is_decided_before_the_base_model_is_loaded(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.gate.bases._served = {}
    assert not here.gate.ready
    error = await refused(here, here.request())
    assert error.reason is ErrorReason.NOT_READY
    assert error.retry_after_s is not None


async def test_no_adapter_or_too_many_are_refused(house: Callable[..., Any]) -> None:
    here = house()
    here.rule(POLICY + "limits:\n  max_adapters: 2\n")
    for request in (here.request(adapters=()), here.request(0, 1, 2)):
        error = await refused(here, request)
        assert error.reason is ErrorReason.REQUEST_INVALID
        assert error.metadata == {"field": "adapters"}
    together = await here.ask(here.request(0, 1))
    assert len(together.decision.evidence.adapters) == 2


async def test_a_reference_has_exactly_one_source(house: Callable[..., Any]) -> None:
    here = house()
    for reference in (
        AdapterReference(),
        here.reference(inline_bytes=b"x"),
        here.reference(uri="hf://a/b"),
    ):
        error = await refused(here, here.request(adapters=(reference,)))
        assert error.reason is ErrorReason.REQUEST_INVALID
        assert error.metadata == {"field": "adapters[0].source"}


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "../../etc/passwd"])
async def test_a_stored_adapter_is_named_by_a_whole_digest(
    house: Callable[..., Any], digest: str
) -> None:
    here = house()
    asked = here.request(adapters=(AdapterReference(stored_sha256=digest),))
    error = await refused(here, asked)
    assert error.reason is ErrorReason.REQUEST_INVALID
    assert error.metadata == {"field": "adapters[0].stored_sha256"}


async def test_an_upload_is_one_adapter_without_a_source(house: Callable[..., Any]) -> None:
    here = house()
    stored = here.gate._intake._intake.fetch(here.reference(), Leash())
    nothing = here.reference(path=None)
    for adapters in ((), (here.reference(),), (nothing, nothing)):
        request = here.request(adapters=adapters)
        with pytest.raises(NoDecisionError) as error:
            await here.gate.decide_stored(request, stored, Leash(), intake_s=0.1)
        assert error.value.reason is ErrorReason.REQUEST_INVALID
    assert here.engine.audits == 0


async def test_a_file_over_the_policys_limit_is_refused(house: Callable[..., Any]) -> None:
    here = house()
    size = len(here.files(0))
    here.rule(POLICY + f"limits:\n  max_file_bytes: {size - 1}\n")
    stored = here.gate._intake._intake.fetch(here.reference(), Leash())
    upload = here.request(adapters=(here.reference(path=None),))
    for asked in (
        here.ask(here.request()),
        here.ask(here.inline()),
        here.gate.decide_stored(upload, stored, Leash(), intake_s=0.1),
    ):
        with pytest.raises(NoDecisionError) as error:
            await asked
        assert error.value.reason is ErrorReason.FILE_TOO_LARGE
        assert error.value.metadata == {"allowed_bytes": str(size - 1), "actual_bytes": str(size)}
    assert here.engine.audits == 0
    here.rule(POLICY + f"limits:\n  max_file_bytes: {size}\n")
    assert (await here.ask()).decision_id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda good: b"", ErrorReason.FILE_EMPTY),
        (lambda good: good[:-8], ErrorReason.FILE_TRUNCATED),
        (lambda good: b"\x80\x04" + good, ErrorReason.PICKLE_REFUSED),
        (lambda good: save({"<learned>": torch.ones(1, 768)}), ErrorReason.EMBEDDING_REFUSED),
    ],
)
async def test_what_intake_refuses_is_no_verdict(
    house: Callable[..., Any], change: Callable[[bytes], bytes], reason: ErrorReason
) -> None:
    here = house()
    bad = here.request(adapters=(AdapterReference(inline_bytes=change(here.files(0))),))
    assert (await refused(here, bad)).reason is reason
    assert (await here.ask()).decision_id


WORD = save({"<learned>": torch.ones(2, WIDTH)})


async def test_an_embedding_is_decided_by_its_kind_alone(house: Callable[..., Any]) -> None:
    here = house()
    word = AdapterReference(inline_bytes=WORD, kind="embedding")
    verdict = await here.ask(here.request(adapters=(word,)))
    [audited] = verdict.decision.evidence.adapters
    assert (audited.kind, audited.matched_modules) == ("embedding", 1)
    again = await here.ask(here.request(adapters=(word,)))
    assert again.cached
    # the verdict that is kept answers no other question
    unnamed = dataclasses.replace(word, kind="lora")
    with pytest.raises(NoDecisionError) as error:
        await here.ask(here.request(adapters=(unnamed,)))
    assert error.value.reason is ErrorReason.EMBEDDING_REFUSED
    assert here.engine.audits == 1


async def test_a_lora_that_calls_itself_an_embedding_is_refused(
    house: Callable[..., Any],
) -> None:
    here = house()
    lora = AdapterReference(inline_bytes=here.files(0), kind="embedding")
    error = await refused(here, here.request(adapters=(lora,)))
    assert error.reason is ErrorReason.EMBEDDING_INVALID


async def test_an_embedding_has_no_strength(house: Callable[..., Any]) -> None:
    here = house()
    for strength in (Strength(0.5, 1.0), Strength(1.0, 0.0)):
        word = AdapterReference(inline_bytes=WORD, kind="embedding", strength=strength)
        error = await refused(here, here.request(adapters=(word,)))
        assert error.reason is ErrorReason.STRENGTH_INVALID
        assert error.metadata == {"field": "adapters[0].denoiser_strength"}


async def test_cached_bytes_with_another_expected_digest_are_refused(
    house: Callable[..., Any],
) -> None:
    here = house()
    request = here.inline()
    await here.ask(request)
    wrong = dataclasses.replace(request.adapters[0], expected_sha256="0" * 64)
    with pytest.raises(NoDecisionError) as error:
        await here.ask(dataclasses.replace(request, adapters=(wrong,)))
    assert error.value.reason is ErrorReason.SHA256_MISMATCH
