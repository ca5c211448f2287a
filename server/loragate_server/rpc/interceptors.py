"""What happens around every call: counting, request ids, errors, drain and access."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc

from loragate_server.config.listen import Permission
from loragate_server.errors import NoDecisionError
from loragate_server.gate.faults import audit_failed
from loragate_server.gate.worker import draining
from loragate_server.logs.lines import REQUEST_ID, log_context
from loragate_server.rpc.access import (
    IDENTITY,
    SEES_SCORES,
    Access,
    answers_while_draining,
    is_open,
)
from loragate_server.rpc.around import AroundInterceptor
from loragate_server.rpc.errors import REQUEST_ID_KEY, abort
from loragate_server.rpc.metadata import metadata_value
from loragate_server.rpc.observer import CallObserver
from loragate_server.tracing.tracer import (
    CURRENT,
    TRACE_HEADERS,
    Tracer,
    note_failure,
)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_ids = random.Random(os.urandom(32))
"""Of request ids, which are no secrets. Asking the system for each would give up the interpreter's
lock in each call, and the thread that audits has it then."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _ids.seed(os.urandom(32)))
_FAULTS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""Statuses that tell of a fault of the server, by the conventions for spans of gRPC servers."""
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class RequestIds(AroundInterceptor):
    """Takes the caller's x-request-id, or makes one; logs and answers carry it."""

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Sets the id for the call."""
        given = metadata_value(context, REQUEST_ID_KEY)
        # Anything else would let a caller write into the log or other systems' labels.
        request_id = given if _REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(128):032x}"
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        with log_context(request_id=request_id):
            yield


class Traces(AroundInterceptor):
    """Gives every call but health checks a span, within the caller's trace if there is one."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Makes the span; `CallCounter` says how it ended."""
        if is_open(method):
            yield
            return
        headers = {name: metadata_value(context, name) for name in TRACE_HEADERS}
        name = method.removeprefix("/")
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": name,
            "loragate.request_id": REQUEST_ID.get(),
            **getattr(context, "span_attributes", {}),  # of calls that come another way
        }
        with self._tracer.serve(name, headers, attributes).active():
            yield


class CallCounter(AroundInterceptor):
    """Reports every call to a `CallObserver`."""

    def __init__(self, observer: CallObserver) -> None:
        super().__init__()
        self._observer = observer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Counts calls of methods that do not exist, too."""
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler is None:
            self._observer.call_started(handler_call_details.method)
            self._observer.call_handled(handler_call_details.method, "UNIMPLEMENTED", 0.0)
        return handler

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Counts the call and takes its time."""
        self._observer.call_started(method)
        began = time.monotonic()
        code = "UNKNOWN"
        try:
            yield
            code = _code_name(context)
        except asyncio.CancelledError:
            remaining_s = context.time_remaining()
            late = remaining_s is not None and remaining_s <= 0
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = _code_name(context)
            raise
        finally:
            spent_s = time.monotonic() - began
            _note_code(code)
            self._observer.call_handled(method, code, spent_s, REQUEST_ID.get())


class Refusals(AroundInterceptor):
    """The last resort: whatever a call raises becomes a status, and no text leaks."""

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Does nothing."""
        yield

    async def failed(self, context: grpc.aio.ServicerContext, error: Exception) -> None:
        """Maps exceptions."""
        note_failure(error)
        if isinstance(error, NoDecisionError):
            await abort(context, error)
        if not isinstance(error, grpc.aio.AbortError):
            await abort(context, audit_failed(error))


class Doorkeeper(AroundInterceptor):
    """Refuses new calls while the server drains, and callers that may not do what they ask."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access
        self.draining = False

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Checks the caller; `IDENTITY` and `SEES_SCORES` are set for the call."""
        if is_open(method):
            yield
            return
        identity, permissions = self.admit(method, context)
        named = IDENTITY.set(identity)
        seeing = SEES_SCORES.set(Permission.SCORES in permissions)
        try:
            yield
        finally:
            SEES_SCORES.reset(seeing)
            IDENTITY.reset(named)

    def admit(
        self, method: str, context: grpc.aio.ServicerContext
    ) -> tuple[str, frozenset[Permission]]:
        """The caller's name and permissions, if the call may be made now.

        Raises:
            NoDecisionError: DRAINING, UNAUTHENTICATED or PERMISSION_DENIED.
        """
        if self.draining and not answers_while_draining(method):
            raise draining()
        return self._access.require(
            method, metadata_value(context, "authorization"), context.auth_context
        )


def _note_code(code: str) -> None:
    """Tells the call's span how it ended."""
    span = CURRENT.get()
    if span is not None:
        span.set("rpc.response.status_code", code)
        if code in _FAULTS:
            span.fault(code)


def _code_name(context: grpc.aio.ServicerContext) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return str(_NAMES.get(code or 0, "UNKNOWN"))
