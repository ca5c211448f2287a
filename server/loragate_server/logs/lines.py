"""The server's own log: one line per event on standard error, for people or as JSON.

Every line carries the ids of the request and of the decision that it belongs to, where there are
any. The decision log is another matter: `record` writes it, and no setting here touches it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

from loragate_server.logs.stray import catch_stray_output
from loragate_server.tracing.tracer import CURRENT

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that the running code serves; the worker thread inherits it."""

DECISION_ID: ContextVar[str] = ContextVar("decision_id", default="")
"""Id of the decision that the running code made."""

_CHATTY = ("asyncio", "aiohttp", "sqlalchemy", "alembic", "fsspec", "urllib3", "diffusers", "peft")


@contextmanager
def log_context(*, request_id: str = "", decision_id: str = "") -> Iterator[None]:
    """Lines logged inside the block carry these ids; an empty one leaves what is set."""
    given = ((REQUEST_ID, request_id), (DECISION_ID, decision_id))
    tokens = [(variable, variable.set(value)) for variable, value in given if value]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, ids, exception, `extra` fields.

    The ids are request_id, decision_id, trace_id and span_id, where there are any.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """`12:34:56.789 INFO    loragate_server.app.running: message (request_id=...)`, on one line.

    Control characters are escaped: names and messages may hold what a stranger wrote.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line; tracebacks follow on lines of their own."""
        details = " ".join(f"{name}={value}" for name, value in (_ids() | _extra(record)).items())
        text = f"{record.name}: {record.getMessage()}" + (f" ({details})" if details else "")
        plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        clock = _time(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        line = f"{clock} {record.levelname:<7} {plain}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logs(
    level: str = "info", style: Literal["human", "json"] = "human", stream: TextIO | None = None
) -> None:
    """Sends everything from `level` on to `stream` (standard error) in the given style.

    Libraries speak from "warning" on, whatever the level. With JSON on standard error, nothing
    else is written there any more.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else HumanFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    if style == "json" and stream is None:
        catch_stray_output()
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _ids() -> dict[str, object]:
    ids = {"request_id": REQUEST_ID.get(), "decision_id": DECISION_ID.get()}
    span = CURRENT.get()
    if span is not None:
        ids |= {"trace_id": span.trace_id, "span_id": span.span_id}
    return {name: value for name, value in ids.items() if value}


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, object]:
    """What the caller passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
