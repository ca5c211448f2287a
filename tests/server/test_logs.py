from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from typing import cast

from loragate_server.logs.lines import log_context, set_up_logs
from loragate_server.tracing.tracer import CURRENT, Span


def lines(style: str, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    set_up_logs(level, style, stream)
    return logging.getLogger("loragate_server.x"), stream


def test_a_json_line_carries_the_ids_and_the_extra_fields() -> None:
    log, stream = lines("json")
    with log_context(request_id="r1"), log_context(decision_id="d1"):
        log.info("took %d ms", 12, extra={"verdict": "BLOCK"})
    log.info("later")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "took 12 ms"
    assert (first["request_id"], first["decision_id"]) == ("r1", "d1")
    assert first["verdict"] == "BLOCK"
    assert "request_id" not in second


def test_a_traceback_stays_inside_the_json_line() -> None:
    log, stream = lines("json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    assert len(stream.getvalue().splitlines()) == 1
    assert "ValueError" in json.loads(stream.getvalue())["exception"]


@dataclass(frozen=True)
class SpanOfTheTest:
    trace_id: str = "a" * 32
    span_id: str = "b" * 16


def test_a_json_line_carries_the_ids_of_the_trace() -> None:
    log, stream = lines("json")
    token = CURRENT.set(cast(Span, SpanOfTheTest()))
    try:
        log.info("inside")
    finally:
        CURRENT.reset(token)
    log.info("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["trace_id"], inside["span_id"]) == ("a" * 32, "b" * 16)
    assert "trace_id" not in outside


STRAY = r"""
import sys, threading, warnings
from loragate_server.logs.lines import set_up_logs
set_up_logs("error", "json")
warnings.warn("old setting")
print("printed by a library", file=sys.stderr)
import typer
typer.echo("told\nby the command", err=True)
class Careless:
    def __del__(self): raise ValueError("in a finaliser")
Careless()
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start(); thread.join()
raise RuntimeError("two\nlines")
"""


def test_whatever_else_reaches_standard_error_is_json_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRAY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in found)
    messages = [line["message"] for line in found]
    for stray in ("printed by a library", "told", "by the command"):
        assert stray in messages
    errors = "\n".join(line.get("exception", "") for line in found)
    for error in ("in a finaliser", "ZeroDivisionError", "RuntimeError: two"):
        assert error in errors


def test_a_message_cannot_forge_a_second_line() -> None:
    log, stream = lines("human")
    log.warning("name %s", "x\n12:00:00.000 INFO forged\x1b[2J")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_lines_below_the_level_and_chatter_of_libraries_are_left_out() -> None:
    log, stream = lines("human", "debug")
    log.debug("mine")
    logging.getLogger("sqlalchemy.engine").info("theirs")
    assert "mine" in stream.getvalue()
    assert "theirs" not in stream.getvalue()
