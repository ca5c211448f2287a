"""Goes through a door of a guarded pipeline, and sees what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch

from loragate import AdapterBlocked, AuditClient, Verdict
from loragate.integrations.diffusers import UnauditedChange, guard
from loragate.testing import FakeAuditServer
from testkit.guard_doors.bench import Bench, Files, bare_pipeline
from testkit.guard_doors.door import Door
from testkit.guard_doors.of_diffusers import PIPELINE, TEXT_ENCODER, UNET
from testkit.guard_doors.past_diffusers import PEFT, PYTHON, TORCH

DOORS = (*PIPELINE, *UNET, *TEXT_ENCODER, *PEFT, *TORCH, *PYTHON)


class Seen(StrEnum):
    """What came of a door, before which the service said BLOCK."""

    ASKED = "asked"
    ASKED_LATER = "asked at the next use"
    REFUSED = "refused"
    REFUSED_LATER = "refused at the next use"
    EMPTY = "nothing is left to ask about"
    UNSEEN = "cannot be seen"


@dataclass(frozen=True)
class Observation:
    """One door and what came of it.

    Attributes:
        sentence: what a refusal said; empty for other outcomes.
    """

    door: Door
    seen: Seen
    sentence: str = ""


def observe(door: Door, files: Files, fake: FakeAuditServer) -> Observation:
    """Goes through a door, without a guard and with one.

    Raises:
        AssertionError: the door changes no picture, or the picture changed though it was closed.
    """
    before, after = _without_guard(door, files)
    assert not _alike(before, after), f"{door.name} changes no picture, so it shows nothing."
    with _guarded(door, files, fake) as bench:
        assert _alike(bench.picture(), before), f"The guard changes the picture of {door.name}."
        fake.default = Verdict.BLOCK
        seen, sentence = _go(door, bench)
        fake.default = Verdict.ALLOW
        if seen in (Seen.ASKED, Seen.REFUSED):
            bench.draw = None
            _holds(bench, before, door)
    if seen is None:
        # Nothing kept it back: then it drew without adapters, or the guard is blind to it.
        bare = Bench(bare_pipeline(), files).picture()
        return Observation(door, Seen.EMPTY if _alike(after, bare) else Seen.UNSEEN)
    if seen in (Seen.ASKED, Seen.ASKED_LATER):
        _works_when_allowed(door, files, fake, after)
    return Observation(door, seen, sentence)


def observe_all(files: Files, doors: tuple[Door, ...] = DOORS) -> list[Observation]:
    """What comes of each door."""
    with FakeAuditServer() as fake:
        return [observe(door, files, fake) for door in doors]


def _without_guard(door: Door, files: Files) -> tuple[torch.Tensor, torch.Tensor]:
    bench = Bench(bare_pipeline(), files)
    door.before(bench)
    before = bench.picture()
    door.act(bench)
    return before, bench.picture()


@contextmanager
def _guarded(door: Door, files: Files, fake: FakeAuditServer) -> Iterator[Bench]:
    fake.default = Verdict.ALLOW
    bench = Bench(bare_pipeline(), files)
    with AuditClient(fake.target, on_unavailable="raise") as client, guard(bench.pipe, client):
        door.before(bench)
        yield bench


def _go(door: Door, bench: Bench) -> tuple[Seen | None, str]:
    """Through the door and to a picture, as far as one comes."""
    try:
        door.act(bench)
    except AdapterBlocked:
        return Seen.ASKED, ""
    except UnauditedChange as error:
        return Seen.REFUSED, str(error)
    try:
        bench.picture()
    except AdapterBlocked:
        return Seen.ASKED_LATER, ""
    except UnauditedChange as error:
        return Seen.REFUSED_LATER, str(error)
    return None, ""


def _holds(bench: Bench, before: torch.Tensor, door: Door) -> None:
    """What was kept back at once has changed nothing, or is found in what it did halfway."""
    try:
        picture = bench.picture()
    except UnauditedChange:
        return
    assert _alike(picture, before), f"{door.name} was kept back and changed the picture."


def _works_when_allowed(
    door: Door, files: Files, fake: FakeAuditServer, after: torch.Tensor
) -> None:
    with _guarded(door, files, fake) as bench:
        door.act(bench)
        assert _alike(bench.picture(), after), f"{door.name} is allowed and does something else."


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)
