"""The doors for proxies, made from the configuration: extractors, checkpoint and HTTP check."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.checkpoint.copies import AuditedCopies
from loragate_server.checkpoint.outcome import CheckOutcome, CheckSource
from loragate_server.checkpoint.reading import RequestReader
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
from loragate_server.rpc.access import Access
from loragate_server.web.check import Check, CheckDoor
from loragate_server.web.readiness import Readiness


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
    access = Access(config)

    def authorize(authorization: str) -> str:
        try:
            return access.require_token(authorization, Permission.CHECK)
        except NoDecisionError as error:
            raise PermissionError(f"{error.message} {error.remedy}") from error

    return CheckDoor(config.intercept, authorize)


def http_check(checkpoint: Checkpoint) -> Check:
    """The checkpoint as the HTTP door asks it."""

    async def check(
        request: HttpRequest, extractor: str, identity: str, leash: Leash
    ) -> CheckOutcome:
        source = CheckSource("http", extractor=extractor, identity=identity)
        return await checkpoint.check(request, source, leash)

    return check
