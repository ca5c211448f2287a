"""Progress and resume for the training scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track as rich_track


def track(steps: Iterable[int], *, total: int, start: int, label: str) -> Iterator[int]:
    """`steps` behind a progress bar that counts from `start` of `total`."""
    yield from rich_track(steps, description=label, total=total, completed=start)


@dataclass
class Checkpoint:
    """Model, optimizer and schedule of an unfinished training, kept in one file.

    Only this project's own training state is ever read back, and with `weights_only=True`.
    """

    path: Path
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def load(self) -> int:
        """Restores the state; returns the number of finished steps (0 for a fresh start)."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Writes the state beside the old file, then replaces it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "step": step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rng": torch.get_rng_state(),
            },
            partial,
        )
        partial.replace(self.path)
