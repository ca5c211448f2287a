"""What needs no model: probes and metrics, policy, record, reviews and the console.

It answers on the HTTP port before models are loaded, and until everything else has been closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from loragate_server.app.announcing import make_announcer, open_events
from loragate_server.app.descriptors import most_connections
from loragate_server.app.devices import make_devices
from loragate_server.app.doors import check_door, rest_door
from loragate_server.app.folders import served_library
from loragate_server.app.ports import GRPC, HTTP, listening, require_free
from loragate_server.app.retaining import open_retention
from loragate_server.app.reviewing import Shown, follow, open_console
from loragate_server.app.tracing import make_metrics, open_tracer
from loragate_server.app.witnessing import open_keeper, open_witness
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config, StartError
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.library import LibraryKeeper
from loragate_server.metrics.metrics import Metrics
from loragate_server.policy.policy import Policy
from loragate_server.policy.store import PolicyStore
from loragate_server.policy.unmatched import unmatched
from loragate_server.recent import files_for
from loragate_server.record.known_book import KnownBook
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.signing.keys import KeyUnusableError
from loragate_server.record.signing.signer import VerdictSigner
from loragate_server.record.weights_book import WeightsBook
from loragate_server.rest.door import RestDoor
from loragate_server.tracing.tracer import Tracer
from loragate_server.web.check import CheckDoor
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer

_log = logging.getLogger(__name__)


@dataclass
class Front:
    """The open parts.

    Attributes:
        http: address of the HTTP port, with the port that the system chose.
        door: `/v1/check`, closed until there is a checkpoint; None where it is not wanted.
        rest: the API as JSON, closed until there are calls; None where it is not wanted.
        library: the library in force; whoever serves another one puts it here.
        uncalibrated: by base model the concepts that no calibration speaks for; whoever serves
            base models puts it here.
        editor: changes the library; None until somebody serves one that can be changed.
    """

    http: str
    metrics: Metrics
    readiness: Readiness
    tracer: Tracer | None
    door: CheckDoor | None
    rest: RestDoor | None
    policies: PolicyStore
    recorder: Recorder
    reviews: ReviewBook
    known: KnownBook
    weights: WeightsBook
    library: Callable[[], ConceptLibrary]
    uncalibrated: Callable[[], Mapping[str, Sequence[str]]] = dict
    editor: Callable[[], LibraryKeeper | None] = lambda: None


async def open_front(config: Config, stack: AsyncExitStack) -> Front:
    """Opens the parts; the stack closes them in the opposite order.

    Raises:
        StartError: something cannot be opened as it is configured.
        NoDecisionError: log, database or policy cannot be used.
    """
    metrics, readiness = make_metrics(config), Readiness(("models", "policy", "grpc"))
    tracer = open_tracer(config, stack)
    door = check_door(config) if config.intercept.http else None
    web = WebServer(
        config.listen.http,
        metrics.registry,
        readiness,
        door,
        max_connections=most_connections(config.listen.max_connections),
        idle_s=config.listen.idle_timeout_s,
    )
    rest = rest_door(config) if config.rest.enabled else None
    if rest is not None:
        web.mount_api(rest)
    stack.push_async_callback(web.close)
    require_free(config.listen.grpc, GRPC)
    require_free(config.listen.http, HTTP)
    policies = await _follow_policy(config, metrics, readiness, stack)
    recorder = await _open_record(config, metrics, readiness, stack)
    reviews = await follow(ReviewBook(recorder.database), stack)
    known = await follow(KnownBook(recorder.database), stack)
    weights = await follow(
        WeightsBook(
            recorder.database,
            lambda: reviews.rejected | policies.current.denied,
            remembered=files_for(config.gate.verdict_cache_size),
        ),
        stack,
    )
    library = await asyncio.to_thread(served_library, config)
    front = Front(
        "",
        metrics,
        readiness,
        tracer,
        door,
        rest,
        policies,
        recorder,
        reviews,
        known,
        weights,
        lambda: library,
    )
    policies.on_change(lambda policy: warn_of_rules(policy, front.library()))
    open_events(config, recorder.database, metrics, lambda: front.uncalibrated(), stack)
    shown = Shown(lambda: front.library(), lambda: front.uncalibrated(), lambda: front.editor())
    books = (reviews, weights)
    console = await open_console(config, recorder, books, shown, metrics, stack)
    if console is not None:
        web.mount(console)
    await open_witness(config, web, stack)
    front.http = await listening(web.start(), config.listen.http, HTTP)
    return front


def warn_of_rules(policy: Policy, library: ConceptLibrary) -> None:
    """Logs each rule of a policy that speaks about no concept of the library."""
    for line in unmatched(policy, library.forbidden):
        _log.warning("policy %s: %s", policy.file, line)


async def _follow_policy(
    config: Config, metrics: Metrics, readiness: Readiness, stack: AsyncExitStack
) -> PolicyStore:
    policies = await asyncio.to_thread(PolicyStore, config.policy.expanduser())
    metrics.follow_policy(policies)
    policies.start()
    stack.push_async_callback(asyncio.to_thread, policies.stop)
    readiness.set("policy")
    return policies


async def _open_record(
    config: Config, metrics: Metrics, readiness: Readiness, stack: AsyncExitStack
) -> Recorder:
    signer = await asyncio.to_thread(_open_signer, config)
    keeper = await asyncio.to_thread(open_keeper, config)
    try:
        recorder = await asyncio.to_thread(
            Recorder,
            config.database,
            config.decision_log_file,
            signer=signer,
            keeper=keeper,
            log_file_bytes=config.retention.log_file_bytes,
            announcer=make_announcer(config),
            devices=make_devices(config, metrics),
        )
    except NoDecisionError as error:
        if error.reason is not ErrorReason.DECISION_LOG_UNAVAILABLE:
            raise
        # Callers are told no folder of this machine; who starts a server has to know which.
        raise StartError(f"{config.decision_log_file}: {error}") from error
    if keeper is not None:
        keeper.start()
        stack.push_async_callback(asyncio.to_thread, keeper.close)
        metrics.follow_checkpoints(keeper.behind_s)
    stack.push_async_callback(asyncio.to_thread, recorder.close)
    open_retention(config, recorder.log, stack)
    if signer is not None:
        readiness.add_check("signing", signer.check)
    readiness.add_check("record", recorder.check)
    metrics.follow_record(recorder.check)
    return recorder


def _open_signer(config: Config) -> VerdictSigner | None:
    if not config.signing.keys:
        return None
    try:
        return VerdictSigner(config.signing)
    except KeyUnusableError as error:
        raise StartError(str(error)) from error
