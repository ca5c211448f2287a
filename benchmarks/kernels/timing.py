"""Timing: replays of one CUDA graph over rotating inputs, or whole calls by the wall clock.

A graph takes the host out: pairs of events around single launches on a starved stream time the
host instead. The whole call by the wall clock is what a caller waits for.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from types import FrameType

import torch

WARM_UP_SECONDS = 0.25
"""Work before the first sample: clocks of an idle device boost, and fall again under load."""

LEAST_REPLAY_US = 1000.0
"""A replay is filled up to this, so that starting it weighs less than half a percent."""


@dataclass(frozen=True)
class Timing:
    """Time of one call, in microseconds.

    Attributes:
        median_us: median over the samples.
        p20_us: a fifth of the samples were not slower than this.
        p80_us: four fifths were not.
        samples: how many.
        how: "graph" or "wall".
    """

    median_us: float
    p20_us: float
    p80_us: float
    samples: int
    how: str

    @property
    def spread(self) -> float:
        """Width of the middle three fifths, relative to the median."""
        return (self.p80_us - self.p20_us) / self.median_us


def summarise(samples_us: Sequence[float], how: str) -> Timing:
    """Median and spread of times of single calls."""
    if len(samples_us) == 1:
        return Timing(samples_us[0], samples_us[0], samples_us[0], 1, how)
    fifths = statistics.quantiles(samples_us, n=5, method="inclusive")
    return Timing(statistics.median(samples_us), fifths[0], fifths[3], len(samples_us), how)


def time_graph(calls: Sequence[Callable[[], object]], budget_s: float = 0.4) -> Timing:
    """Times calls that differ in their inputs only, captured one after the other.

    Args:
        calls: one per set of inputs; together they must read more than the cache holds.
        budget_s: about how long to sample.
    """
    _warm_on_side_stream(calls)
    graph = _captured(calls)
    alone = max(_replay_us(graph, 1)[0], 1.0)
    rounds = int(-(-LEAST_REPLAY_US // alone)) if alone < LEAST_REPLAY_US else 1
    if rounds > 1:
        graph = _captured(list(calls) * rounds)
        alone *= rounds
    _replay_us(graph, max(1, int(WARM_UP_SECONDS * 1e6 / alone)))
    samples = _replay_us(graph, min(200, max(7, int(budget_s * 1e6 / alone))))
    per_replay = rounds * len(calls)
    return summarise([sample / per_replay for sample in samples], "graph")


def _warm_on_side_stream(calls: Sequence[Callable[[], object]]) -> None:
    """Everything lazy (compiling, handles) happens before capture, on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()


def _captured(calls: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def _replay_us(graph: torch.cuda.CUDAGraph, count: int) -> list[float]:
    """Times of `count` replays. All are enqueued before the first is waited for."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) * 1e3 for start, end in pairwise(events)]


def time_wall(
    calls: Sequence[Callable[[], object]],
    budget_s: float = 0.4,
    *,
    least: int = 5,
    most: int = 200,
    warm_up_s: float = WARM_UP_SECONDS,
) -> Timing:
    """Times whole calls, the device waited for, in turn over their inputs."""
    began = time.perf_counter()
    for call in calls:
        _one_us(call)
    while time.perf_counter() - began < warm_up_s:
        _one_us(calls[0])
    samples: list[float] = []
    for call in islice(cycle(calls), most):
        samples.append(_one_us(call))
        if len(samples) >= least and sum(samples) > budget_s * 1e6:
            break
    return summarise(samples, "wall")


def time_in_turns(
    contenders: Sequence[Sequence[Callable[[], object]]], rounds: int = 9
) -> list[Timing]:
    """Times whole calls of several contenders, one of each per round.

    For machines that others use: whoever disturbs a round disturbs all contenders alike.
    """
    for calls in contenders:
        _one_us(calls[0])
    samples: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds):
        for found, calls in zip(samples, contenders, strict=True):
            found.append(_one_us(calls[turn % len(calls)]))
    return [summarise(found, "wall") for found in samples]


def _one_us(call: Callable[[], object]) -> float:
    synchronize()
    began = time.perf_counter()
    call()
    synchronize()
    return (time.perf_counter() - began) * 1e6


def synchronize() -> None:
    """Waits for the GPU, if this process uses one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside once `seconds` have passed; main thread only.

    A timer that was set outside gets the time it had left.
    """

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    outer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)
