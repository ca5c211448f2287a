"""A test that hangs ends its process and says where it hung, so that a run of all tests ends.

pytest-timeout fails a test that takes too long by an exception in its main thread. What then
waits for ever while it cleans up (a pool for its threads, a `with` for its child process) is
beyond it, and so is a teardown after a failure, where it stops its clock. A thread of the
interpreter itself watches over both here: it needs neither the main thread nor the GIL, prints
the stacks of all threads and ends the process. pytest-xdist then names the test that was running,
counts it as failed and goes on with the others in a new process.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest
from pytest_timeout import Settings

from testkit.waiting import at_most

CLEAN_UP_S = 60.0
"""What a test that pytest-timeout has failed may take to clean up, before it counts as hanging."""

STDERR = pytest.StashKey[int]()
SLOWER = pytest.StashKey[float]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """On a busy machine a test may take longer, in the measure in which it is busy."""
    config.stash[STDERR] = os.dup(2)  # that of a test is captured
    config.stash[SLOWER] = at_most(1.0)
    if config.getoption("timeout", None) is None:
        config.option.timeout = float(config.getini("timeout")) * config.stash[SLOWER]


def pytest_itemcollected(item: pytest.Item) -> None:
    """So may one that has a limit of its own."""
    own = item.get_closest_marker("timeout")
    if own is not None:
        item.add_marker(pytest.mark.timeout(own.args[0] * item.config.stash[SLOWER]), append=False)


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.cancel_dump_traceback_later()
    os.close(config.stash[STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> Generator[None, bool, bool]:
    """Watches from where pytest-timeout does."""
    _end_after(settings.timeout + CLEAN_UP_S, item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Watches over the teardown after a failure too, for which all other clocks are stopped."""
    _end_after(item.config.option.timeout + CLEAN_UP_S, item)
    yield


def pytest_runtest_logfinish() -> None:
    faulthandler.cancel_dump_traceback_later()


def _end_after(limit_s: float, item: pytest.Item) -> None:
    faulthandler.dump_traceback_later(limit_s, exit=True, file=item.config.stash[STDERR])
