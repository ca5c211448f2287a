"""Progress of long commands, on standard error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
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

from loragate_server.progress import Report

SAY_EVERY_S = 30.0
"""Between two lines where there is no terminal, such as in the log of a job."""
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
def progress_bars() -> Iterator[Report]:
    """Bars on standard error while the block runs; lines now and then where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with _shown(console):
            yield Lines()
        return
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
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


class Lines:
    """A `Report` that says how far a stage is and how long it may take still, now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._begun_s = self._said_s = 0.0
        self._begun_at = 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        """Says nothing of what ends soon."""
        now_s = self._clock()
        if stage != self._stage:
            self._stage, self._begun_at = stage, fraction
            self._begun_s = self._said_s = now_s
        if now_s - self._said_s < SAY_EVERY_S:
            return
        self._said_s = now_s
        done = fraction - self._begun_at
        left = ""
        if done > 0 and fraction < 1:
            left_s = (now_s - self._begun_s) / done * (1 - fraction)
            left = f", {max(1, round(left_s / 60))} min left"
        typer.echo(f"{stage}: {fraction:.0%}{left}", err=True)
