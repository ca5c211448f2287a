"""The doors for proxies, made from the configuration: extractors, checkpoint and HTTP check."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from loragate_server.app.ports import listening
from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.copies import AuditedCopies
from loragate_server.checkpoint.outcome import CheckOutcome, CheckSource
from loragate_server.checkpoint.reading import RequestReader
from loragate_server.config.intercept import RelayEntry
from loragate_server.config.listen import Permission
from loragate_server.config.schema import Config
from loragate_server.errors import NoDecisionError
from loragate_server.gate.gate import Gate
from loragate_server.gate.intake import IntakeDesk
from loragate_server.intake.fetch import Intake
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.request import HttpRequest
from loragate_server.metrics.metrics import Metrics
from loragate_server.progress import Leash
from loragate_server.relay.observer import RelayObserver
from loragate_server.relay.relay import Relay
from loragate_server.relay.session import Check as CheckMessage
from loragate_server.rest.door import RestDoor
from loragate_server.rpc.access import Access
from loragate_server.web.check import Check, CheckDoor
from loragate_server.web.readiness import Readiness

_log = logging.getLogger(__name__)


def open_checkpoint(
    config: Config,
    extractors: Mapping[str, ImageServer],
    gate: Gate,
    intake: Intake,
    metrics: Metrics,
    readiness: Readiness,
    stack: AsyncExitStack,
) -> Checkpoint | None:
    """The checkpoint, closed with the stack; None where no extractor is configured."""
    if not extractors:
        return None
    metrics.follow_extractors(extractors)
    metrics.follow_relays(config.intercept.relays)
    desk = IntakeDesk(intake)
    stack.callback(desk.close)
    readiness.add_check("intake of checks", desk.require_free)
    section = config.intercept
    copies = AuditedCopies(desk, intake, section.audited_root, section.keep_s)
    reader = RequestReader(section.reading_s)
    stack.callback(reader.close)
    readiness.add_check("reading of requests", reader.require_free)
    return Checkpoint(section, extractors, gate, copies, reader, metrics)


def check_door(config: Config) -> CheckDoor:
    """`/v1/check`, closed until the checkpoint is there."""
    return CheckDoor(config.intercept, _authorizer(config))


def rest_door(config: Config) -> RestDoor:
    """The API as JSON, closed until the calls are there."""
    return RestDoor(config, config.console.public_url if config.console.enabled else "")


def _authorizer(config: Config) -> Callable[[str], str]:
    """Knows the proxies that show a token of theirs."""
    access = Access(config)

    def authorize(authorization: str) -> str:
        try:
            return access.require_token(authorization, Permission.CHECK)
        except NoDecisionError as error:
            raise PermissionError(f"{error.message} {error.remedy}") from error

    return authorize


async def open_relays(
    config: Config, checkpoint: Checkpoint, observer: RelayObserver, stack: AsyncExitStack
) -> None:
    """The ports for WebSockets, closed with the stack.

    Raises:
        StartError: one cannot listen.
    """
    for name, settings in config.intercept.relays.items():
        relay = _relay(config, name, settings, checkpoint, observer)
        stack.push_async_callback(relay.close)
        address = await listening(relay.start(), settings.listen, f"intercept.relays.{name}.listen")
        _log.info("relay %s: %s to %s", name, address, settings.upstream)


def _relay(
    config: Config,
    name: str,
    settings: RelayEntry,
    checkpoint: Checkpoint,
    observer: RelayObserver,
) -> Relay:
    def source(identity: str) -> CheckSource:
        return CheckSource("relay", name, identity, rewrites=settings.rewrite)

    def may_open(request: HttpRequest, identity: str) -> CheckOutcome:
        return checkpoint.check_opening(request, source(identity))

    def check_of(identity: str) -> CheckMessage:
        return lambda request, leash: checkpoint.check(request, source(identity), leash)

    limit = config.intercept.max_body_bytes
    authorize = _authorizer(config)
    return Relay(name, settings, limit, authorize, may_open, check_of, observer)


def http_check(checkpoint: Checkpoint) -> Check:
    """The checkpoint as the HTTP door asks it."""

    async def check(
        request: HttpRequest, extractor: str, identity: str, leash: Leash
    ) -> CheckOutcome:
        source = CheckSource("http", extractor=extractor, identity=identity)
        return await checkpoint.check(request, source, leash)

    return check
