"""What the rooms know of tracing: the span that the running code belongs to.

Where tracing is off there is none, nothing is imported, and asking costs one look into a context
variable. `tracing.export` makes real spans and sends them away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

Value = str | bool | int | float
"""What an attribute can be; several texts are a tuple."""


class Span(Protocol):
    """Something that takes time within a trace. Thread-safe."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether the trace is kept, so that its id leads somewhere."""
        ...

    def set(self, name: str, value: Value | tuple[str, ...]) -> None:
        """Sets an attribute."""
        ...

    def link(self, other: Span) -> None:
        """Says that this one waits for what `other` does."""
        ...

    def failed(self, error: BaseException) -> None:
        """Says why it did not reach its end; the first reason stays."""
        ...

    def fault(self, description: str) -> None:
        """Marks it as an error of this server."""
        ...

    def start(self, name: str) -> Span:
        """Starts a child; `active` ends it."""
        ...

    def took(self, name: str, seconds: float, ended_ago_s: float) -> None:
        """Adds a child that has ended already."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """The code inside belongs to it; it ends with the block, with what is raised as error."""
        ...


class Tracer(Protocol):
    """Makes the first span of ours in a trace."""

    def serve(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]) -> Span:
        """Starts the span of a call that arrived, in the trace that its headers name, if any."""
        ...


TRACE_HEADERS = ("traceparent", "tracestate")
"""What a caller's trace is named in; W3C Trace Context."""

CURRENT: ContextVar[Span | None] = ContextVar("span", default=None)
"""The span that the running code belongs to; threads that work for a call inherit it."""


def start(name: str) -> Span | None:
    """Starts a child of the current span, where there is one."""
    current = CURRENT.get()
    return None if current is None else current.start(name)


@contextmanager
def inside(span: Span | None) -> Iterator[None]:
    """The code inside belongs to a span that was started, where it was."""
    if span is None:
        yield
    else:
        with span.active():
            yield


def stage(name: str) -> AbstractContextManager[None]:
    """The code inside is a stage of the current span, where there is one."""
    return inside(start(name))


def took(name: str, seconds: float, *, ended_ago_s: float = 0.0) -> None:
    """A stage of the current span took so long, and ended now or some seconds ago."""
    current = CURRENT.get()
    if current is not None:
        current.took(name, seconds, ended_ago_s)


def note(name: str, value: Value | tuple[str, ...]) -> None:
    """Sets an attribute of the current span, where there is one."""
    current = CURRENT.get()
    if current is not None:
        current.set(name, value)


def note_failure(error: BaseException) -> None:
    """Says that the current span, where there is one, did not reach its end."""
    current = CURRENT.get()
    if current is not None:
        current.failed(error)


def trace_id(*, sampled: bool = False) -> str:
    """Id of the current trace, empty without one; with `sampled`, only of one that is kept."""
    current = CURRENT.get()
    if current is None or (sampled and not current.sampled):
        return ""
    return current.trace_id
