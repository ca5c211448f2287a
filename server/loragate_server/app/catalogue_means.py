"""What a scan of a catalogue is measured with: built once, before auditors elsewhere need it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.recall import Fed
from loragate_server.config.schema import StartError
from loragate_server.gate.bases import ServedBase
from loragate_server.models.base import BaseModel

SAY_EVERY_S = 10.0
"""Between two lines about one stage."""


class Building:
    """A `Report` that tells people how far the means are, and ends the work at the stop.

    Args:
        say: told lines for people.
        is_stopped: whether a signal has come.
        clock: in seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        is_stopped: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._is_stopped = is_stopped
        self._clock = clock
        self._stage = ""
        self._said_s = 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        """Says that a stage begins, and now and then how far it is.

        Raises:
            StartError: the scan was stopped.
        """
        if self._is_stopped():
            raise StartError(
                f"The scan was stopped before the first file, at: {stage}. What is built already "
                "is kept, and the same command goes on there."
            )
        now_s = self._clock()
        if stage != self._stage:
            self._say(stage)
        elif now_s - self._said_s < SAY_EVERY_S:
            return
        else:
            self._say(f"{stage}: {fraction:.0%}")
        self._stage, self._said_s = stage, now_s


@dataclass(frozen=True)
class _Named:
    """What the gate has to know of a base model that auditors hold elsewhere."""

    name: str
    digest: str


@dataclass(frozen=True)
class Means:
    """What auditors measure with.

    Attributes:
        fed: to the response stage.
        calibration: its digest; "" without one.
    """

    fed: Fed
    calibration: str


def served_elsewhere(serve: Callable[[], ServedBase]) -> tuple[ServedBase, Means]:
    """What the gate is told of the base model: names and digests, without the weights in memory.

    Besides, what auditors measure with.

    The probes are built here, once, so that a hundred auditors find them in the cache.
    """
    made = serve()
    named = _Named(made.name, made.base.digest)
    # The gate asks a base model that it does not measure on for nothing else.
    told = ServedBase(
        made.name,
        cast(BaseModel, named),
        cast(AuditEngine, None),
        made.library_digest,
        made.concept_ids,
    )
    calibration = made.engine.materials.calibration
    return told, Means(made.engine.fed, "" if calibration is None else calibration.digest)
