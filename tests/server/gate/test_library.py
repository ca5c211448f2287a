"""Changes of the concept library while audits go on, and audits of the real engine."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from loragate_server.audit.engine import AuditEngine
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbeSet, build_probes
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.gate import Gate
from loragate_server.gate.library import MOST_WAITING, LibraryKeeper, serve_base
from loragate_server.models import BaseModel
from loragate_server.policy.decision import VerdictKind
from loragate_server.progress import Leash, Report, Turns
from testkit.evidence import as_answered

COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta", "black", "gray", "white", "brown")


def picture(index: int) -> bytes:
    """A disk of one colour on another."""
    image = Image.new("RGB", (16, 16), COLOURS[index % 10])
    ImageDraw.Draw(image).ellipse((3, 3, 12, 12), fill=COLOURS[(index // 10 + index + 1) % 10])
    image.save(data := io.BytesIO(), "PNG")
    return data.getvalue()


def concept(concept_id: str, role: Any = "forbidden") -> Concept:
    return Concept(concept_id, concept_id.title(), "character", "high", role)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two forbidden and eight neutral concepts."""
    folder = tmp_path_factory.mktemp("library")
    entries = [("cat", "forbidden"), ("dog", "forbidden")]
    entries += [(f"neutral-{index}", "neutral") for index in range(8)]
    lines = ["version: 1", "concepts:"]
    for index, (name, role) in enumerate(entries):
        (folder / "shots" / name).mkdir(parents=True)
        (folder / "shots" / name / "front.png").write_bytes(picture(index))
        lines.append(
            f"  - {{id: {name}, name: {name}, category: character, severity: high, "
            f"role: {role}, prompts: [], pictures: [shots/{name}/front.png]}}"
        )
    (folder / "library.yaml").write_text("\n".join(lines) + "\n")
    return folder


@dataclass
class Keeping:
    """A keeper over a real library, and how often its engines were built."""

    keeper: LibraryKeeper
    gate: Gate
    folder: Path
    builds: list[str]
    fail: threading.Event
    held: threading.Event
    building: threading.Event


@pytest.fixture
def keeping(
    house: Callable[..., Any], tiny: BaseModel, shelf: Path, tmp_path: Path
) -> Iterator[tuple[Any, Keeping]]:
    here = house()
    folder = Path(shutil.copytree(shelf, tmp_path / "library"))
    builds: list[str] = []
    fail, held, building = threading.Event(), threading.Event(), threading.Event()
    held.set()

    def build(
        base: BaseModel, library: ConceptLibrary, report: Report, turns: Turns
    ) -> AuditEngine:
        builds.append(library.digest)
        building.set()
        assert held.wait(20)
        probes = build_probes(library, base, tmp_path / "probes", report, turns=turns)
        return turns(lambda: engine(base, probes))

    def engine(base: BaseModel, probes: ProbeSet) -> AuditEngine:
        if fail.is_set():
            raise RuntimeError("the device is gone")
        return AuditEngine(base, probes)

    library = ConceptLibrary.open(folder)
    here.gate.bases.swap([serve_base(tiny, library, build)])
    keeper = LibraryKeeper(library, here.gate.bases, here.gate.worker, build)
    yield here, Keeping(keeper, here.gate, folder, builds, fail, held, building)
    held.set()
    keeper.close()


async def test_a_real_audit_is_recorded_and_a_cached_one_is_what_would_be_said_again(
    keeping: tuple[Any, Keeping],
) -> None:
    here, _ = keeping
    first, cached = await here.ask(), await here.ask()
    here.gate._cache.clear()
    again = await here.ask()
    assert cached.cached
    assert not again.cached

    def said(verdict: Any) -> Any:
        decision = as_answered(verdict.decision)
        evidence = dataclasses.replace(decision.evidence, stage_times_s={})
        return dataclasses.replace(decision, evidence=evidence)

    assert said(first) == said(cached) == said(again)
    assert first.decision.evidence.layers == again.decision.evidence.layers != ()
    assert {one.evidence.concept_id for one in first.decision.findings} == {"cat", "dog"}
    assert first.decision.verdict in VerdictKind


async def test_a_new_concept_is_in_force_when_the_call_returns(
    keeping: tuple[Any, Keeping],
) -> None:
    here, there = keeping
    before = await here.ask()
    digest = await there.keeper.create(concept("fox"), [picture(20), picture(31)], Leash())
    assert digest == there.keeper.library.digest == ConceptLibrary.open(there.folder).digest
    assert digest != before.decision.evidence.library_digest
    assert there.keeper.library.get("fox").picture_files[0].is_relative_to(there.folder)
    after = await here.ask()
    assert not after.cached
    assert after.decision.evidence.library_digest == digest
    assert {one.evidence.concept_id for one in after.decision.findings} == {"cat", "dog", "fox"}
    assert (await here.ask(here.request(concept_ids=("fox",)))).decision_id


async def test_a_removed_concept_is_no_longer_known(keeping: tuple[Any, Keeping]) -> None:
    here, there = keeping
    before = there.keeper.library.digest
    digest = await there.keeper.remove("dog", Leash())
    assert digest == ConceptLibrary.open(there.folder).digest != before
    verdict = await here.ask()
    assert [one.evidence.concept_id for one in verdict.decision.findings] == ["cat"]
    with pytest.raises(NoDecisionError) as refused:
        await here.ask(here.request(concept_ids=("dog",)))
    assert refused.value.reason is ErrorReason.CONCEPT_UNKNOWN


@pytest.mark.parametrize("change", ["create", "remove"])
async def test_a_rebuild_that_fails_leaves_the_old_library_in_force_and_on_disk(
    keeping: tuple[Any, Keeping], change: str
) -> None:
    here, there = keeping
    before, digest = contents(there.folder), there.keeper.library.digest
    served = there.gate.bases.served
    there.fail.set()
    changing = (
        there.keeper.create(concept("fox"), [picture(20)], Leash())
        if change == "create"
        else there.keeper.remove("dog", Leash())
    )
    with pytest.raises(NoDecisionError) as refused:
        await changing
    assert refused.value.reason is ErrorReason.AUDIT_FAILED
    assert contents(there.folder) == before
    assert there.keeper.library.digest == digest
    assert there.gate.bases.served == served
    verdict = await here.ask()
    assert {one.evidence.concept_id for one in verdict.decision.findings} == {"cat", "dog"}
    there.fail.clear()
    await there.keeper.create(concept("fox"), [picture(20)], Leash())


@pytest.mark.parametrize("change", ["create", "remove"])
async def test_a_change_that_would_cost_the_calibration_is_refused_with_what_to_do(
    keeping: tuple[Any, Keeping], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, there = keeping
    [served], before = there.gate.bases.served, contents(there.folder)
    monkeypatch.setattr(AuditEngine, "calibrated", property(lambda one: one is served.engine))
    changing = (
        there.keeper.create(concept("fox"), [picture(20)], Leash())
        if change == "create"
        else there.keeper.remove("dog", Leash())
    )
    with pytest.raises(NoDecisionError, match="no concept of base model tiny-sd would") as refused:
        await changing
    assert ".kept.safetensors" in refused.value.remedy
    assert contents(there.folder) == before
    assert there.gate.bases.served == (served,)


async def test_a_change_that_the_library_refuses_builds_nothing(
    keeping: tuple[Any, Keeping],
) -> None:
    _, there = keeping
    before, builds = contents(there.folder), len(there.builds)
    refused = {
        ErrorReason.CONCEPT_EXISTS: there.keeper.create(concept("cat"), [picture(1)], Leash()),
        ErrorReason.CONCEPT_PICTURES_INVALID: there.keeper.create(concept("fox"), [b""], Leash()),
        ErrorReason.REQUEST_INVALID: there.keeper.create(concept("../x"), [picture(1)], Leash()),
        ErrorReason.CONCEPT_UNKNOWN: there.keeper.remove("fox", Leash()),
        ErrorReason.LIBRARY_EMPTY: there.keeper.remove("neutral-0", Leash()),
    }
    for reason, asked in refused.items():
        with pytest.raises(NoDecisionError) as error:
            await asked
        assert error.value.reason is reason
    assert contents(there.folder) == before
    assert len(there.builds) == builds


async def test_questions_are_answered_by_the_old_library_until_the_new_one_is_complete(
    keeping: tuple[Any, Keeping],
) -> None:
    here, there = keeping
    before = there.keeper.library.digest
    there.held.clear()
    there.building.clear()
    changing = asyncio.ensure_future(there.keeper.create(concept("fox"), [picture(20)], Leash()))
    assert await asyncio.to_thread(there.building.wait, 20)
    for strength in (0.5, 0.6, 0.7):
        verdict = await here.ask(here.request(strength=strength))
        assert verdict.decision.evidence.library_digest == before
    assert not changing.done()
    there.held.set()
    digest = await changing
    assert (await here.ask()).decision.evidence.library_digest == digest


async def test_audits_come_between_the_pieces_of_a_change(
    keeping: tuple[Any, Keeping], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = keeping
    submit, order = there.gate.worker.submit, []

    async def listed(work: Any, leash: Leash, *, background: bool = False, **more: Any) -> Any:
        def piece() -> Any:
            order.append("piece")
            return work()

        return await submit(piece if background else work, leash, background=background, **more)

    monkeypatch.setattr(there.gate.worker, "submit", listed)
    changing = asyncio.ensure_future(there.keeper.create(concept("fox"), [picture(20)], Leash()))
    numbers = itertools.count(1)

    async def keep_asking() -> None:
        while not changing.done():
            request = here.request(strength=next(numbers) / 100)
            await here.ask(request, report=lambda stage, _: order.append(stage))

    await asyncio.gather(*(keep_asking() for _ in range(3)))  # so that one of them always waits
    await changing
    first, last = order.index("piece"), len(order) - order[::-1].index("piece")
    # its pictures, the engine, and the change itself
    assert order.count("piece") == 3
    assert {"screen", "response"} & set(order[first:last])


async def test_changes_take_no_audits_place_in_the_queue_and_do_not_pile_up(
    keeping: tuple[Any, Keeping],
) -> None:
    here, there = keeping
    there.held.clear()
    changes = [
        asyncio.ensure_future(there.keeper.create(concept(f"fox-{n}"), [picture(20 + n)], Leash()))
        for n in range(MOST_WAITING + 1)
    ]
    await asyncio.sleep(0)
    assert there.gate.worker.depth == 0
    with pytest.raises(NoDecisionError) as refused:
        await there.keeper.remove("dog", Leash())
    assert refused.value.reason is ErrorReason.QUEUE_FULL
    assert (await here.ask()).decision_id
    there.held.set()
    await asyncio.gather(*changes)
    assert len(ConceptLibrary.open(there.folder).forbidden) == 2 + len(changes)


async def test_a_change_whose_caller_has_gone_before_its_turn_is_not_made(
    keeping: tuple[Any, Keeping],
) -> None:
    _, there = keeping
    there.held.clear()
    first = asyncio.ensure_future(there.keeper.create(concept("fox"), [picture(20)], Leash()))
    assert await asyncio.to_thread(there.building.wait, 20)
    second = asyncio.ensure_future(there.keeper.remove("dog", Leash()))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    there.held.set()
    await first
    assert await there.keeper.create(concept("owl"), [picture(30)], Leash())
    assert "dog" in [one.concept_id for one in there.keeper.library.forbidden]


async def test_a_server_that_stops_gives_up_the_change_and_leaves_the_library(
    keeping: tuple[Any, Keeping],
) -> None:
    _, there = keeping
    before = contents(there.folder)
    there.held.clear()
    changing = asyncio.ensure_future(there.keeper.create(concept("fox"), [picture(20)], Leash()))
    assert await asyncio.to_thread(there.building.wait, 20)
    there.gate.worker.close(timeout_s=1.0)
    there.held.set()
    with pytest.raises(NoDecisionError) as refused:
        await changing
    assert refused.value.reason is ErrorReason.DRAINING
    assert contents(there.folder) == before
    there.keeper.close()
    with pytest.raises(NoDecisionError) as closed:
        await there.keeper.remove("dog", Leash())
    assert closed.value.reason is ErrorReason.DRAINING


async def test_a_change_goes_on_when_its_caller_goes(
    keeping: tuple[Any, Keeping], until: Callable[..., Any]
) -> None:
    _, there = keeping
    there.held.clear()
    there.building.clear()
    changing = asyncio.ensure_future(there.keeper.remove("dog", Leash()))
    assert await asyncio.to_thread(there.building.wait, 20)
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    there.held.set()
    await until(lambda: len(there.keeper.library.forbidden) == 1)
    assert [one.concept_id for one in ConceptLibrary.open(there.folder).forbidden] == ["cat"]


async def test_what_another_process_added_meanwhile_is_served_too(
    keeping: tuple[Any, Keeping],
) -> None:
    here, there = keeping
    there.held.clear()
    there.building.clear()
    changing = asyncio.ensure_future(there.keeper.create(concept("fox"), [picture(20)], Leash()))
    assert await asyncio.to_thread(there.building.wait, 20)
    ConceptLibrary.open(there.folder).add(concept("owl"), [picture(43)])
    there.held.set()
    digest = await changing
    verdict = await here.ask()
    assert verdict.decision.evidence.library_digest == digest
    found = {one.evidence.concept_id for one in verdict.decision.findings}
    assert found == {"cat", "dog", "fox", "owl"}


async def test_a_folder_that_another_process_changed_is_brought_into_force(
    keeping: tuple[Any, Keeping],
) -> None:
    here, there = keeping
    ConceptLibrary.open(there.folder).add(concept("owl"), [picture(43)])
    assert "owl" not in [one.concept_id for one in there.keeper.library.concepts]
    digest = await there.keeper.adopt(Leash())
    verdict = await here.ask()
    assert verdict.decision.evidence.library_digest == digest == there.keeper.library.digest
    found = {one.evidence.concept_id for one in verdict.decision.findings}
    assert found == {"cat", "dog", "owl"}
