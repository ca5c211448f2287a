"""How long a class will take here, and how much room: measured on one picture and a few steps."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loragate_server.trials.drawing import Artist
from loragate_server.trials.errors import TrialError
from loragate_server.trials.lessons import concept_lesson, harmless_lesson, things_taught
from loragate_server.trials.recipe import Recipe
from loragate_server.trials.school import Class
from loragate_server.trials.subjects import DrawnSubjects
from loragate_server.trials.training import train_adapter

_STEPS = 4
_RANK = 16


@dataclass(frozen=True)
class Estimate:
    """What a class takes, if nothing of it is there yet.

    Attributes:
        pictures: to draw; 0 where they are brought.
        picture_s: seconds for each.
        steps: of all trainings together, about.
        step_s: seconds for each.
        disk_bytes: of all adapters, at the higher of usual ranks, and of pictures.
        memory_bytes: most that the GPU held meanwhile; 0 on a CPU.
    """

    pictures: int
    picture_s: float
    steps: int
    step_s: float
    disk_bytes: int
    memory_bytes: int

    @property
    def total_s(self) -> float:
        """Seconds for all of it; the audits of a calibration come on top."""
        return self.pictures * self.picture_s + self.steps * self.step_s


def estimate(enrolled: Class) -> Estimate:
    """Measures; nothing of it is kept.

    Raises:
        TrialError: as `train_adapter`, and where nothing is to be trained.
    """
    adapters = enrolled.harmless + enrolled.learned
    if not adapters:
        raise TrialError("nothing is to be trained, so there is nothing to estimate")
    device = enrolled.base.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as scratch:
        pictures, picture_s, picture_bytes = 0, 0.0, 0
        subjects = enrolled.subjects
        if isinstance(subjects, DrawnSubjects):
            pictures = subjects.count * things_taught(enrolled.harmless)
            artist = Artist(subjects.artist.base, Path(scratch), subjects.artist.settings)
            subjects = replace(subjects, artist=artist, count=1)
            begun_s = time.monotonic()
            [drawn] = subjects.pictures(subjects.names[0], "striped", 0)
            picture_s = time.monotonic() - begun_s
            picture_bytes = drawn.stat().st_size
        if subjects is not None:
            lesson = harmless_lesson(subjects, 0)
        else:
            assert enrolled.kept is not None  # noqa: S101 - for types: something is trained
            concepts = enrolled.kept.concepts(enrolled.library)
            lesson = concept_lesson(concepts, enrolled.kept.pictures, 0)
        plan, file = enrolled.plan, Path(scratch, "adapter.safetensors")
        moments: list[float] = []
        train_adapter(
            enrolled.base,
            lesson,
            Recipe(_RANK, _STEPS, plan.learning_rate, plan.batch, 0),
            file,
            lambda _: moments.append(time.monotonic()),
        )
        adapter_bytes = file.stat().st_size
    return Estimate(
        pictures,
        picture_s,
        adapters * plan.steps,
        (moments[-1] - moments[0]) / (len(moments) - 1),
        adapters * adapter_bytes + pictures * picture_bytes,
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    )
