"""A scan of a catalogue: the gate and record of a server, with auditors elsewhere."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch

from loragate_server.app.folders import make_state_folder, served_library
from loragate_server.app.front import Front, open_front
from loragate_server.app.reviewing import follow
from loragate_server.app.startup import engine_builder, load_base, quiet_libraries
from loragate_server.audit.engine import AuditEngine
from loragate_server.catalogue import ray_job
from loragate_server.catalogue.auditing import Question
from loragate_server.catalogue.listing import Source
from loragate_server.catalogue.progress import REFUSED, Progress
from loragate_server.catalogue.ray_job import Machines
from loragate_server.catalogue.recording import Recording
from loragate_server.catalogue.results import Results
from loragate_server.catalogue.scan import (
    Outcome,
    consume,
    known_places,
    remaining,
    scan_id_of,
)
from loragate_server.config.console import ConsoleSection
from loragate_server.config.schema import BaseModelEntry, Config, StartError
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.gate import Gate
from loragate_server.gate.library import serve_base
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.metrics.catalogue import follow_catalogue
from loragate_server.models.base import BaseModel
from loragate_server.record.scanned import scanned

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        out: folder of the results.
        retry: look again at what was refused for reasons that may have gone.
    """

    source: Source
    out: Path
    machines: Machines
    base_model: str = ""
    retry: bool = False


@dataclass(frozen=True)
class _Named:
    """What the gate has to know of a base model that auditors hold elsewhere."""

    name: str
    digest: str


def entry_of(config: Config, name: str) -> BaseModelEntry:
    """The configured base model of this name; the default one for the empty name.

    Raises:
        StartError: there is none.
    """
    entries = {entry.name: entry for entry in config.base_models}
    if name and name not in entries:
        raise StartError(f"--base-model {name} is not configured; there are: {', '.join(entries)}.")
    return entries[name] if name else config.base_models[0]


def serve_one(config_json: str, base_model: str) -> ServedBase:
    """A base model with its engine, in whatever process this is called.

    One thread: many auditors share a machine, and a live server with `threads: 1` gets the same
    bits.

    Raises:
        StartError: it cannot be served.
    """
    config = Config.model_validate_json(config_json)
    torch.set_num_threads(config.threads or 1)
    quiet_libraries()
    base = load_base(entry_of(config, base_model))
    return serve_base(base, served_library(config), engine_builder(config))


async def scan(config: Config, job: Job, say: Callable[[str], None]) -> Outcome:
    """Runs a scan to its end, or to SIGTERM or SIGINT, after which it can go on.

    Args:
        config: of a server; its ports are not opened, but that of the metrics is.
        job: what is asked for.
        say: told lines for people.

    Raises:
        StartError: it cannot begin as it is configured, or Ray is not installed.
        SourceError: the source cannot be listed.
        NoDecisionError: nothing can be recorded.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopped.set)
    make_state_folder(config)
    config_json = config.model_dump_json()
    config = config.model_copy(update={"console": ConsoleSection()})
    async with AsyncExitStack() as stack:
        front = await open_front(config, stack)
        served = await asyncio.to_thread(_served_elsewhere, config_json, job.base_model)
        gate = await _open_gate(config, front, served, stack)
        front.readiness.set("models")
        front.readiness.set("grpc")
        scan_id = scan_id_of(job.source.text, served, front.policies.current)
        say(f"scan {scan_id} of {job.source.text}; metrics at http://{front.http}/metrics")
        return await _run(config, job, front, gate, served, scan_id, say, stopped, config_json)


async def _run(
    config: Config,
    job: Job,
    front: Front,
    gate: Gate,
    served: ServedBase,
    scan_id: str,
    say: Callable[[str], None],
    stopped: asyncio.Event,
    config_json: str,
) -> Outcome:
    folder = job.out / scan_id
    results = Results(folder)
    known = await asyncio.to_thread(known_places, folder, retry=job.retry)
    recorded = await asyncio.to_thread(scanned, front.recorder.database, scan_id)
    listed = await asyncio.to_thread(lambda: {one.location: one for one in job.source.entries()})
    asked = list(remaining(iter(listed.values()), known))
    before = len(listed) - len(asked)
    progress = Progress(len(listed), before)
    if before:
        say(f"going on: {before} of {len(listed)} files have their result")
    recording = Recording(
        scan_id,
        served.name,
        decide=gate.decide_measured,
        stored=front.recorder.get,
        recorded=recorded,
        results=results,
        progress=progress,
    )
    follow_catalogue(front.metrics.registry, progress)
    question = Question(config.intake.loaders, front.policies.current.screen_miss_rate)
    left = 0
    if progress.left:
        with ray_job.ray_instance(job.machines):
            rows = ray_job.run(
                iter(asked),
                job.machines,
                intake_json=job.source.settings(config.intake).model_dump_json(),
                serve=partial(serve_one, config_json, job.base_model),
                question=question,
                recorded=list(recorded),
            )
            left = await consume(
                rows,
                recording,
                results,
                progress,
                tell=lambda one: say(one.line),
                stopped=stopped,
            )
    anew = {entry.location for entry in asked}
    refused = sum(one.refused for place, one in known.items() if place in {*listed} - anew)
    return Outcome(folder, len(listed), refused + progress.done[REFUSED], progress.left + left)


def _served_elsewhere(config_json: str, base_model: str) -> ServedBase:
    """What the gate is told of the base model: names and digests, without the weights in memory.

    The probes are built here, once, so that a hundred auditors find them in the cache.
    """
    made = serve_one(config_json, base_model)
    named = _Named(made.name, made.base.digest)
    # The gate asks a base model that it does not measure on for nothing else.
    return ServedBase(
        made.name,
        cast(BaseModel, named),
        cast(AuditEngine, None),
        made.library_digest,
        made.concept_ids,
    )


async def _open_gate(
    config: Config, front: Front, served: ServedBase, stack: AsyncExitStack
) -> Gate:
    intake = Intake(config.intake, config.store_folder)
    lineage = await follow(LineageBook(front.recorder.database, front.known), stack)
    gate = Gate(
        settings=config.gate,
        intake=intake,
        bases=BaseRegistry(served.name, [served]),
        policies=front.policies,
        recorder=front.recorder,
        read=partial(read_adapter, loaders=config.intake.loaders),
        observer=front.metrics,
        reviews=front.reviews,
        known=front.known,
        lineage=lineage,
        weights=front.weights,
    )
    stack.push_async_callback(gate.close)
    return gate
