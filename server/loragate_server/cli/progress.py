"""Progress of long commands, on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SAYS = "loragate_server.concepts.building"
"""The logger that says how gradients are made, and in how much memory, before it begins."""


class _Lines(logging.Handler):
    """Puts lines of a log above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        self._console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _shown(console: Console) -> Iterator[None]:
    logger, lines = logging.getLogger(_SAYS), _Lines(console)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars on standard error while the block runs."""
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as progress,
        _shown(progress.console),
    ):
        bars = Bars(progress)
        yield bars
        bars.finish()


class Bars:
    """A `Report` that shows one bar per stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, fraction: float) -> None:
        """Moves the bar of the stage; stages before it are done."""
        if stage not in self._tasks:
            self.finish()
            self._tasks[stage] = self._progress.add_task(stage, total=1.0)
        self._progress.update(self._tasks[stage], completed=fraction)

    def finish(self) -> None:
        """Fills every bar."""
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total)
