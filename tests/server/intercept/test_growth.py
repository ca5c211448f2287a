"""What it costs to read a request grows with the request, and no faster."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept import hostile, hostile_graphs
from tests.server.intercept.bodies import ROUTES, extractor
from tests.server.intercept.hostile import Shape

LIMIT_BYTES = 8 << 20
"""As large as is measured; a gate reads up to four times as much unless it is told otherwise."""
FIRST_BYTES, LAST_BYTES = 8_000, 128_000
"""Where it is measured: at the first size that tells something."""
TELLING_S = 0.005
"""Below this, what is measured is noise."""
CHEAP_S = 0.05
"""A body of the limit that takes less does not matter, however it comes about."""
TIMES = 4
"""How much larger the second body is."""
MOST_GROWTH = 11
"""In proportion is 4 and as the square 16; what no longer fits a cache of the machine takes up to
three times as long for twice the bytes, once on a quiet machine and again on a shared one."""
ATTEMPTS = 3


def shapes(server: str) -> Iterator[tuple[str, Shape]]:
    yield from hostile.text_shapes(server)
    yield from hostile.value_shapes(server)
    yield from hostile.body_shapes(server)
    yield from hostile.form_shapes(server)
    yield from hostile_graphs.graph_shapes(server)
    yield from hostile_graphs.message_shapes(server)


def seconds(server: ImageServer, request: HttpRequest) -> float:
    """Without the garbage collector, whose time grows with all that the process holds."""
    gc.disable()
    try:
        began = time.process_time()
        with suppress(RefusedRequestError):
            server.extract(request)
        return time.process_time() - began
    finally:
        gc.enable()


def growth(server: ImageServer, shape: Shape, size: int, last: int) -> tuple[int, float]:
    """At the first size that takes time, the growth to `TIMES` that size, best of three."""
    while True:
        one = shape(size)
        first = seconds(server, one)
        if first >= TELLING_S or size * 2 > last:
            break
        size *= 2
    other = shape(TIMES * size)
    second = seconds(server, other)
    for _ in range(2):
        if second < CHEAP_S * TIMES * size / LIMIT_BYTES:
            return size, 1.0
        if second < MOST_GROWTH * first:
            break
        first = min(first, seconds(server, one))
        second = min(second, seconds(server, other))
    return size, second / max(first, 1e-6)


def grows_too_fast(server: ImageServer, shape: Shape, first_bytes: int, last_bytes: int) -> str:
    """What is wrong with a shape, which has to be wrong at larger sizes too: caches are not."""
    size, told = first_bytes, list[str]()
    for _ in range(ATTEMPTS):
        size, grown = growth(server, shape, size, last_bytes)
        told.append(f"{grown:.1f} at {size} bytes")
        if grown < MOST_GROWTH:
            return ""
        size *= 2
    return ", ".join(told)


@pytest.mark.parametrize("server", ROUTES)
def test_the_time_grows_in_proportion_to_the_body(server: str) -> None:
    made = extractor(server)
    wrong = {
        name: told
        for name, shape in shapes(server)
        if (told := grows_too_fast(made, shape, FIRST_BYTES, LAST_BYTES))
    }
    assert wrong == {}


@pytest.mark.long
@pytest.mark.timeout(1800)  # some shapes take seconds, and ComfyUI alone is sent hundreds
@pytest.mark.parametrize("server", ROUTES)
def test_it_does_so_up_to_the_largest_body(server: str) -> None:
    made = extractor(server)
    wrong = {
        name: told
        for name, shape in shapes(server)
        if (told := grows_too_fast(made, shape, LIMIT_BYTES // TIMES, LIMIT_BYTES))
    }
    assert wrong == {}


def test_the_shapes_are_as_large_as_they_say() -> None:
    for server in ROUTES:
        for name, shape in shapes(server):
            request = shape(40_000)
            told = len(request.body) + len(request.query) + sum(map(len, request.headers.values()))
            assert 100 < told < 400_000, name
