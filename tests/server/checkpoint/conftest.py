"""A checkpoint over a gate made of the real rooms."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pytest

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.copies import AuditedCopies
from loragate_server.checkpoint.reading import RequestReader
from loragate_server.checkpoint.result import CheckObserver
from loragate_server.config.intake import IntakeSection
from loragate_server.config.intercept import InterceptSection
from loragate_server.gate.intake import IntakeDesk
from loragate_server.intake.fetch import Intake
from loragate_server.intercept.base import ImageServer
from tests.server.checkpoint.server_of_the_test import PlainServer
from tests.server.gate.conftest import House, files, house, tiny, until

__all__ = ["files", "house", "tiny", "until"]


@dataclass
class Told(CheckObserver):
    """Counts what the checkpoint tells."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def intercepted(self, extractor: str, outcome: str, seconds: float) -> None:
        self.counts[extractor, outcome] += 1
        self.seconds.append(seconds)


@dataclass
class Post:
    """A checkpoint and the house behind it."""

    checkpoint: Checkpoint
    house: House
    told: Told
    intake: Intake


MakePost = Callable[..., Post]


@pytest.fixture
async def post(house: Callable[..., House]) -> AsyncIterator[MakePost]:
    desks: list[IntakeDesk] = []
    readers: list[RequestReader] = []

    def make(
        root: PurePath | None = None,
        keep_s: float = 60.0,
        *,
        alone: bool = False,
        server: Callable[[PurePath], ImageServer] = lambda _: PlainServer(),
        **settings: Any,
    ) -> Post:
        home, told = house(), Told()
        store_dir = home.root.parent / "store"
        intake = Intake(IntakeSection(roots=(home.root,)), store_dir)
        desks.append(IntakeDesk(intake))
        readers.append(RequestReader(limit_s=2.0))
        servers: dict[str, ImageServer] = {"plain": server(home.root)}
        if not alone:
            servers["other"] = PlainServer(label="other")
        checkpoint = Checkpoint(
            InterceptSection(
                extractors={name: {"kind": "test"} for name in servers},
                default_extractor="" if alone else "plain",
                **settings,
            ),
            servers,
            home.gate,
            AuditedCopies(desks[-1], intake, root, keep_s),
            readers[-1],
            told,
        )
        return Post(checkpoint, home, told, intake)

    yield make
    for one in (*desks, *readers):
        one.close()
