"""A scan of a catalogue: the gate and record of a server, with auditors elsewhere."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from loragate_server.app.catalogue_means import Building, Means, served_elsewhere
from loragate_server.app.catalogue_refusals import refusals
from loragate_server.app.folders import served_library
from loragate_server.app.front import Front, open_front
from loragate_server.app.reviewing import follow
from loragate_server.app.startup import serve_bases
from loragate_server.app.state import make_state_folder
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.catalogue import ray_job
from loragate_server.catalogue.auditing import Question
from loragate_server.catalogue.earlier import Facts, earlier_scans, responses_in, write_facts
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.following import Following
from loragate_server.catalogue.known import Known, Noted, failed_places, known_places, remaining
from loragate_server.catalogue.listing import Source, SourceError
from loragate_server.catalogue.progress import Progress
from loragate_server.catalogue.ray_job import Machines
from loragate_server.catalogue.recording import Recording
from loragate_server.catalogue.results import Results, held
from loragate_server.catalogue.scan import Outcome, consume, scan_id_of
from loragate_server.config.console import ConsoleSection
from loragate_server.config.schema import BaseModelEntry, Config, StartError
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.gate import Gate
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.metrics.catalogue import follow_catalogue
from loragate_server.policy.policy import Policy
from loragate_server.progress import Report, silent
from loragate_server.record.scanned import scanned


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        out: folder of the results.
        retry: look again at what was refused for reasons that may have gone.
        anew: measure everything, whatever earlier scans have measured.
        every_s: pause between two looks at the source; None for a single one.
    """

    source: Source
    out: Path
    machines: Machines
    base_model: str = ""
    retry: bool = False
    anew: bool = False
    every_s: float | None = None


def entry_of(config: Config, name: str) -> BaseModelEntry:
    """The configured base model of this name; the default one for the empty name.

    Raises:
        StartError: there is none.
    """
    entries = {entry.name: entry for entry in config.base_models}
    if name and name not in entries:
        raise StartError(f"--base-model {name} is not configured; there are: {', '.join(entries)}.")
    return entries[name] if name else config.base_models[0]


def serve_one(config_json: str, base_model: str, report: Report = silent) -> ServedBase:
    """A base model with its engine, in whatever process this is called.

    One thread: many auditors share a machine, and a live server with `threads: 1` gets the same
    bits. The report is told what `serve_bases` does.

    Raises:
        StartError: it cannot be served.
    """
    config = Config.model_validate(json.loads(config_json))
    torch.set_num_threads(config.threads or 1)
    config = config.model_copy(update={"base_models": (entry_of(config, base_model),)})
    [served] = serve_bases(config, served_library(config), report)
    return served


async def scan(config: Config, job: Job, say: Callable[[str], None]) -> Outcome:
    """Runs a scan to its end, or to SIGTERM or SIGINT, after which it can go on.

    A job with a pause looks again and again, and ends by a signal alone. A policy that changes
    ends it too, for its verdicts would be those of another scan.

    Args:
        config: of a server; its ports are not opened, but that of the metrics is.
        job: what is asked for.
        say: told lines for people.

    Raises:
        StartError: it cannot begin as it is configured.
        SourceError: the source cannot be listed.
        NoDecisionError: nothing can be recorded.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopped.set)
    make_state_folder(config)
    config = config.model_copy(update={"console": ConsoleSection()})
    async with AsyncExitStack() as stack:
        front = await open_front(config, stack)
        serve = partial(serve_one, for_auditors(config), job.base_model)
        watched = partial(serve, report=Building(say, stopped.is_set))
        served, means = await asyncio.to_thread(served_elsewhere, watched)
        gate = await _open_gate(config, front, served, stack)
        for part in ("models", "grpc"):
            front.readiness.set(part)

        def stop(_: Policy) -> None:
            loop.call_soon_threadsafe(stopped.set)

        front.policies.on_change(stop)
        policy, loaders = front.policies.current, config.intake.loaders
        scan_id = scan_id_of(job.source.text, served, means.calibration, policy, loaders)
        folder = job.out / scan_id
        if not stack.enter_context(held(folder)):
            raise StartError(
                f"Another scan writes to {folder}: wait for it, or name another --out."
            )
        facts = _facts(job.source.text, served, policy, loaders, means)
        write_facts(folder, facts)
        say(f"scan {scan_id} of {job.source.text}; metrics at http://{front.http}/metrics")
        running = _Running(config, job, front, gate, served, serve, scan_id, facts, say, stopped)
        follow_catalogue(front.metrics.registry, lambda: running.progress)
        if job.every_s is None:
            return await running.once()
        return await running.follow(job.every_s)


@dataclass
class _Running:
    """The open parts of a scan, for one look at its source or many."""

    config: Config
    job: Job
    front: Front
    gate: Gate
    served: ServedBase
    serve: Callable[[], ServedBase]
    scan_id: str
    facts: Facts
    say: Callable[[str], None]
    stopped: asyncio.Event
    progress: Progress = field(default_factory=lambda: Progress(0))
    known: dict[str, Known] | None = None
    following: Following | None = None
    responses: Mapping[str, bytes] | None = None

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.job.out / self.scan_id

    async def follow(self, every_s: float) -> Outcome:
        """Looks again and again, until a signal. A look that fails is told and made again."""
        self.following = Following(every_s)
        outcome = await self.once()
        while not self.stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), every_s)
                break
            try:
                outcome = await self.once()
            except SourceError as error:
                self.progress.looks["failed"] += 1
                self.say(f"{error} Looking again in {every_s:.0f} s.")
        return outcome

    async def once(self) -> Outcome:
        """Audits what has no result yet."""
        if self.known is None:
            self.known = await asyncio.to_thread(known_places, self.folder)
        known, following = self.known, self.following
        try:
            listed = await asyncio.to_thread(self._listed)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise SourceError(f"{self.job.source.text} cannot be listed: {why}.") from error
        again = failed_places(known) if self.job.retry else set[str]()
        if following is not None:
            again = following.due(known)
        asked = list(remaining(iter(listed.values()), known, again))
        before = len(listed) - len(asked)
        self.progress.look(len(listed), before)
        if before and asked:
            self.say(f"going on: {before} of {len(listed)} files have their result")
        if asked and not self.stopped.is_set():
            await self._audit(asked, Noted(Results(self.folder), known))
        refused = [place for place in listed if place in known and known[place].refused]
        if refused and following is None:
            for line in await asyncio.to_thread(refusals, self.folder, refused):
                self.say(line)
        return Outcome(self.folder, len(listed), len(refused), self.progress.left)

    def _listed(self) -> dict[str, Entry]:
        entries = self.job.source.entries()
        if self.following is not None:
            entries = self.following.settled(entries)
        return {entry.location: entry for entry in entries}

    async def _audit(self, asked: Sequence[Entry], noted: Noted) -> None:
        recorded = await asyncio.to_thread(
            scanned, self.front.recorder.database, self.scan_id, self.facts.policy_digest
        )
        if self.responses is None:
            self.responses = await asyncio.to_thread(self._known_responses)
        recording = Recording(
            self.scan_id,
            self.served.name,
            decide=self.gate.decide_measured,
            stored=self.front.recorder.get,
            policy_digest=self.facts.policy_digest,
            calibration_digest=self.facts.calibration_digest,
            recorded=recorded,
            results=noted,
            progress=self.progress,
        )
        intake, policy = self.config.intake, self.front.policies.current
        with ray_job.ray_instance(self.job.machines):
            rows = ray_job.run(
                iter(asked),
                self.job.machines,
                intake_json=self.job.source.settings(intake).model_dump_json(),
                serve=self.serve,
                question=Question(
                    intake.loaders, policy.screen_miss_rate, self.config.gate.stuck_after_s
                ),
                recorded=list(recorded),
                responses=self.responses,
            )
            await consume(
                rows,
                recording,
                noted.results,
                self.progress,
                tell=lambda one: self.say(one.line),
                stopped=self.stopped,
            )

    def _known_responses(self) -> Mapping[str, bytes]:
        if self.job.anew:
            return {}
        scans = earlier_scans(self.job.out, self.facts)
        found = responses_in(scans, self.front.recorder.get)
        if found:
            self.say(f"files whose response stage is known from earlier scans: {len(found)}")
        return found


def _facts(
    source: str, served: ServedBase, policy: Policy, loaders: Sequence[str], means: Means
) -> Facts:
    return Facts(
        source=source,
        base_model=served.name,
        base_digest=served.base.digest,
        library_digest=served.library_digest,
        calibration_digest=means.calibration,
        policy_digest=policy.digest,
        engine_version=ENGINE_VERSION,
        loaders=tuple(loaders),
        fed=dict(means.fed.concepts),
        bank=means.fed.bank,
    )


def for_auditors(config: Config) -> str:
    """What an auditor has to know: no password, token or key goes to a cluster."""
    places = {"base_models", "library", "state_dir", "cache_dir"}
    means = {"gradients", "kernel_backend", "threads"}
    return config.model_dump_json(include=places | means)


async def _open_gate(
    config: Config, front: Front, served: ServedBase, stack: AsyncExitStack
) -> Gate:
    # Nothing is stored; a server beside this job must not find its own store tidied up.
    intake = Intake(config.intake, config.state_folder / "catalogue" / "store")
    lineage = await follow(LineageBook(front.recorder.database, front.known), stack)
    gate = Gate(
        settings=config.gate,
        findings=config.findings,
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
