"""`Checkpoint`: an HTTP request in, an answer out. Nothing else leaves it: no error, no doubt."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from loragate_server.checkpoint.answers import (
    code_of,
    explanation,
    failed,
    no_decision,
    refused,
    unknown_extractor,
    without_adapter,
)
from loragate_server.checkpoint.copies import AuditedCopies
from loragate_server.checkpoint.outcome import CheckOutcome, CheckSource
from loragate_server.checkpoint.reading import RequestReader
from loragate_server.checkpoint.result import CheckObserver, Result
from loragate_server.checkpoint.statuses import (
    FORBIDDEN,
)
from loragate_server.config.intercept import InterceptSection
from loragate_server.errors import NoDecisionError
from loragate_server.gate.gate import Gate
from loragate_server.gate.request import GateRequest
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import (
    Extraction,
    RefusedRequestError,
)
from loragate_server.intercept.passing import outline
from loragate_server.intercept.refusals import door_closed, incomplete, route_unknown
from loragate_server.intercept.request import HttpRequest
from loragate_server.policy.decision import VerdictKind
from loragate_server.progress import Leash
from loragate_server.record.verdict import Caller, Verdict

_log = logging.getLogger(__name__)

_UNKNOWN = frozenset({Result.UNKNOWN_DENIED, Result.UNKNOWN_WARNED, Result.UNKNOWN_PASSED})


class Checkpoint:
    """Decides over requests to image servers. Belongs to one event loop."""

    def __init__(
        self,
        settings: InterceptSection,
        extractors: Mapping[str, ImageServer],
        gate: Gate,
        copies: AuditedCopies,
        reader: RequestReader,
        observer: CheckObserver,
    ) -> None:
        self.settings = settings
        self._extractors = dict(extractors)
        self._gate = gate
        self._copies = copies
        self._reader = reader
        self._observer = observer

    async def check(self, request: HttpRequest, source: CheckSource, leash: Leash) -> CheckOutcome:
        """Whether the request may reach the image server.

        Asking twice gives the same answer: the second one comes from the verdict cache.
        """
        began = time.perf_counter()
        name, extractor = self._asked(source)
        if extractor is None:
            outcome = unknown_extractor()
        else:
            outcome = await self._guarded(request, source, leash, name, extractor)
        outcome = self._softened(outcome)
        self._tell(outcome, source, time.perf_counter() - began, request)
        return outcome

    def check_head(self, request: HttpRequest, source: CheckSource) -> CheckOutcome | None:
        """What can be said before the body has come; None where the whole request has to be read.

        It is told and counted like `check`, which is then not to be asked any more.
        """
        began = time.perf_counter()
        name, extractor = self._asked(source)
        if extractor is None:
            return None
        try:
            _admit_line(request)
            extraction = extractor.settle(request)
            outcome = None if extraction is None else without_adapter(name, extraction)
        except RefusedRequestError as error:
            outcome = self._softened(refused(name, extractor, error))
        except Exception as error:
            outcome = self._softened(failed(name, error))
        if outcome is not None:
            self._tell(outcome, source, time.perf_counter() - began, request)
        return outcome

    def opens_stream(self, request: HttpRequest, source: CheckSource) -> bool:
        """Whether a request opens a stream of gRPC whose messages can be shown to `check`."""
        _, extractor = self._asked(source)
        try:
            return extractor is not None and extractor.opens_stream(request)
        except RefusedRequestError:
            return False

    def check_opening(self, request: HttpRequest, source: CheckSource) -> CheckOutcome:
        """Whether a WebSocket or a stream may open, for a door that shows each of its messages."""
        began = time.perf_counter()
        name, extractor = self._asked(source)
        if extractor is None:
            outcome = unknown_extractor()
        else:
            try:
                _admit_line(request)
                extractor.open_socket(request)
                outcome = without_adapter(name, Extraction())
            except RefusedRequestError as error:
                outcome = refused(name, extractor, error)
            except Exception as error:
                outcome = failed(name, error)
        outcome = self._softened(outcome)
        self._tell(outcome, source, time.perf_counter() - began, request)
        return outcome

    def refuse(self, source: CheckSource, error: RefusedRequestError) -> CheckOutcome:
        """Refuses, in a dry run too, what a door cannot even show."""
        name, extractor = self._asked(source)
        outcome = unknown_extractor() if extractor is None else refused(name, extractor, error)
        self._tell(outcome, source, 0.0, None)
        return outcome

    def turn_away(self, source: CheckSource, error: NoDecisionError) -> CheckOutcome:
        """Refuses, in a dry run too, what a door has no room for."""
        name, extractor = self._asked(source)
        if extractor is None:
            outcome = unknown_extractor()
        else:
            outcome = no_decision(name, extractor, error, Extraction())
        self._tell(outcome, source, 0.0, None)
        return outcome

    def _asked(self, source: CheckSource) -> tuple[str, ImageServer | None]:
        """The extractor that a proxy names, or else the configured one; None: there is none."""
        name = source.extractor or self.settings.chosen_extractor
        return name, self._extractors.get(name)

    async def _guarded(
        self,
        request: HttpRequest,
        source: CheckSource,
        leash: Leash,
        name: str,
        extractor: ImageServer,
    ) -> CheckOutcome:
        """The outcome, whatever extractor and gate raise."""
        extraction = Extraction()
        try:
            try:
                _admit_line(request)
                # What passes or fails by its head needs no body, which may have no end.
                settled = extractor.settle(request)
                if settled is not None:
                    return without_adapter(name, settled)
                self._admit_body(request)
                read = partial(extractor.extract, request)
                extraction = await self._reader.run(read, len(request.body), leash)
                if not extraction.adapters:
                    return without_adapter(name, extraction)
                return await self._decide(request, source, leash, name, extractor, extraction)
            except RefusedRequestError as error:
                return refused(name, extractor, error)
            except NoDecisionError as error:
                return no_decision(name, extractor, error, extraction)
        except Exception as error:
            return failed(name, error)

    def _admit_body(self, request: HttpRequest) -> None:
        if not request.body_complete:
            raise incomplete(
                "The body did not arrive here as a whole.",
                "Have the proxy buffer and send the whole body, or send a smaller one.",
            )
        if len(request.body) > self.settings.max_body_bytes:
            raise incomplete(
                f"The body has {len(request.body)} bytes; {self.settings.max_body_bytes} is the "
                "limit.",
                "Send a smaller one, or raise intercept.max_body_bytes.",
            )

    async def _decide(
        self,
        request: HttpRequest,
        source: CheckSource,
        leash: Leash,
        name: str,
        extractor: ImageServer,
        extraction: Extraction,
    ) -> CheckOutcome:
        """The gate's verdict over adapters that will be active together."""
        adapters = extraction.adapters
        # In a dry run nothing is rewritten, so the files are judged as the image server has them.
        rewrites = source.rewrites and not self.settings.dry_run
        if rewrites:
            adapters = await self._copies.pin(adapters, leash)
        question = GateRequest(
            adapters=adapters,
            base_model=extraction.base_model,
            caller=Caller(service=f"{source.door}/{name}", identity=source.identity),
            dry_run=self.settings.dry_run,
        )
        verdict = await self._gate.decide(question, leash)
        outcome = CheckOutcome(
            Result.ALLOW,
            name,
            decision_id=verdict.decision_id,
            verdict=verdict.decision.verdict.value,
            mode=verdict.decision.mode.value,
        )
        if not self._passes(verdict):
            denial = extractor.deny(
                FORBIDDEN, code_of(verdict), explanation(verdict), verdict.decision_id
            )
            return replace(outcome, result=Result.DENY, denial=denial)
        digests = tuple(one.sha256 for one in verdict.decision.evidence.adapters)
        if not rewrites:
            return replace(outcome, audited=await self._known_copies(digests, leash))
        paths = await self._copies.paths(digests, leash, keep=True)
        # What the request itself carries is what was audited, and has no name to replace.
        named = {
            at: path for at, path in paths.items() if extraction.adapters[at].inline_bytes is None
        }
        write = partial(_rewritten, request, extractor, named)
        body = await self._reader.run(write, len(request.body), leash)
        return replace(outcome, audited=paths, body=body)

    def _passes(self, verdict: Verdict) -> bool:
        kind = verdict.decision.verdict
        return kind is VerdictKind.ALLOW or (
            kind is VerdictKind.REVIEW and self.settings.review_passes
        )

    async def _known_copies(self, digests: tuple[str, ...], leash: Leash) -> dict[int, str]:
        """The copies, for a door that only tells of them: it does not matter if one has gone."""
        try:
            return await self._copies.paths(digests, leash, keep=False)
        except NoDecisionError:
            return {}

    def _softened(self, outcome: CheckOutcome) -> CheckOutcome:
        """The outcome in a dry run, in which everything passes."""
        if outcome.allowed or not self.settings.dry_run:
            return outcome
        return replace(outcome, result=Result.DRY_RUN_DENY, denial=None, body=None)

    def _tell(
        self,
        outcome: CheckOutcome,
        source: CheckSource,
        seconds: float,
        request: HttpRequest | None,
    ) -> None:
        self._observer.intercepted(outcome.extractor, outcome.result.value, seconds)
        if outcome.result in (Result.ALLOW_NO_ADAPTER, Result.ALLOW):
            return
        # Path, headers and body may hold secrets: the line names none of them, but for the words of
        # a path that nobody knows, without which it could not be found.
        _log.info(
            "%s at %s by %s: verdict %s, decision %s%s",
            outcome.result,
            source.door,
            outcome.extractor,
            outcome.verdict or "none",
            outcome.decision_id or "none",
            f", route {outline(request)}" if request and outcome.result in _UNKNOWN else "",
        )


def _rewritten(request: HttpRequest, extractor: ImageServer, paths: Mapping[int, str]) -> bytes:
    body = extractor.rewrite(request, paths)
    if body is None:
        raise door_closed(
            "This request cannot be made to load the audited copy.",
            "Guard this route with ext_authz, which does not rewrite.",
        )
    return body


def _admit_line(request: HttpRequest) -> None:
    if not request.method or not request.path.startswith(("/", "*")):
        raise route_unknown(
            "The request has no method, or no path that begins with a slash.",
            "Have the proxy show method and path as they were sent.",
        )
