"""What is known of the files that were seen last."""

from __future__ import annotations

import threading

from loragate_server.recent import RecentFiles


def test_what_was_set_longest_ago_is_forgotten_first_and_a_look_changes_nothing() -> None:
    known = RecentFiles[int](2)
    known["a"], known["b"] = 1, 2
    assert known.get("a") == 1
    known["c"] = 3
    assert [known.get(name) for name in "abc"] == [None, 2, 3]
    known["b"] = 4
    known["d"] = 5
    assert [known.get(name) for name in "bcd"] == [4, None, 5]


def test_what_is_told_to_be_forgotten_is() -> None:
    known = RecentFiles[float](2)
    known["a"] = 0.0
    known.forget("a")
    known.forget("never seen")
    assert known.get("a") is None
    assert len(known) == 0


def test_threads_that_fill_it_leave_as_much_as_it_may_hold() -> None:
    known = RecentFiles[int](50)

    def fill(part: int) -> None:
        for number in range(2000):
            known[f"{part} {number}"] = number
            known.get(f"{part - 1} {number}")
            known.forget(f"{part} {number - 20}")

    threads = [threading.Thread(target=fill, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(known) <= 50
