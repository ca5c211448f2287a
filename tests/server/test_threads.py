"""A pool for work that may never end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from loragate_server.threads import DaemonPool
from testkit.waiting import at_most, eventually


def test_it_runs_what_it_is_given_on_few_threads() -> None:
    pool = DaemonPool(3, "few")

    def work() -> str:
        time.sleep(0.005)
        return threading.current_thread().name

    names = [pool.submit(work) for _ in range(40)]
    assert {one.result(10) for one in names} <= {"few_1", "few_2", "few_3"}
    assert pool.submit(divmod, 7, 2).result(10) == (3, 1)
    pool.shutdown()


def test_an_exception_goes_to_whoever_waits_and_the_thread_goes_on() -> None:
    pool = DaemonPool(1, "one")
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(10)
    with pytest.raises(SystemExit):
        pool.submit(sys.exit, 3).result(10)
    assert pool.submit(lambda: "still there").result(10) == "still there"
    pool.shutdown()


def test_it_says_since_when_no_thread_is_free() -> None:
    pool, let_go = DaemonPool(2, "two"), threading.Event()
    assert pool.busy_s() == 0
    first = pool.submit(let_go.wait, 10)
    time.sleep(0.05)
    assert pool.busy_s() == 0
    second = pool.submit(let_go.wait, 10)
    waiting = pool.submit(lambda: None)
    time.sleep(0.1)
    assert 0.05 < pool.busy_s() < 5
    let_go.set()
    for one in (first, second, waiting):
        one.result(10)
    until = time.monotonic() + 5
    while pool.busy_s() and time.monotonic() < until:
        time.sleep(0.005)
    assert pool.busy_s() == 0
    pool.shutdown()


def test_after_its_end_it_takes_nothing_and_drops_what_waits() -> None:
    pool, begun, let_go = DaemonPool(1, "one"), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return let_go.wait(120)

    running, waiting = pool.submit(work), pool.submit(lambda: None)
    assert begun.wait(10)
    began = time.monotonic()
    pool.shutdown(cancel_futures=True)
    assert time.monotonic() - began < at_most(1)
    with pytest.raises(CancelledError):
        waiting.result(10)
    with pytest.raises(RuntimeError, match="no more work"):
        pool.submit(lambda: None)
    let_go.set()
    assert running.result(10)


def test_an_idle_thread_holds_no_result() -> None:
    class Large:
        """Something that has to go."""

    pool = DaemonPool(1, "one")
    result = pool.submit(Large)
    gone = weakref.ref(result.result(10))
    pool.submit(lambda: None).result(10)
    del result
    gc.collect()
    assert gone() is None
    pool.shutdown()


def test_a_process_ends_although_a_thread_of_it_never_will() -> None:
    program = """
import time
from loragate_server.threads import DaemonPool
pool = DaemonPool(2, "stuck")
[pool.submit(time.sleep, 600) for _ in range(5)]
time.sleep(0.1)
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert time.monotonic() - began < at_most(30)


def test_a_pool_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        DaemonPool(0, "none")


def test_it_starts_no_thread_once_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DaemonPool(2, "few")

    def refuse(self: threading.Thread) -> None:
        raise AssertionError("a thread was started, which may wait for ever")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    go_on = threading.Event()
    first = pool.submit(go_on.wait)
    assert pool.submit(lambda: 2).result(10) == 2
    go_on.set()
    assert first.result(10)
    pool.shutdown()


def test_it_tells_how_many_threads_have_not_ended() -> None:
    pool = DaemonPool(3, "counted")
    assert pool.alive == 3
    pool.shutdown()
    assert eventually(lambda: pool.alive == 0, 10)
