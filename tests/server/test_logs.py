from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from loragate_server.logs import log_context, set_up_logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


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
