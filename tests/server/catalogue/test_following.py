"""Which files of a followed source are taken, and when those that failed are tried again."""

from __future__ import annotations

from itertools import pairwise

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.following import (
    LONGEST_PAUSE_S,
    LONGEST_UNSETTLED_S,
    SETTLES_S,
    Following,
)
from loragate_server.catalogue.known import Known


class Clock:
    """Time that stands until it is moved."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def taken(following: Following, *entries: Entry) -> list[str]:
    return [one.location for one in following.settled(iter(entries))]


def test_a_file_is_taken_when_it_was_written_some_seconds_ago() -> None:
    following = Following(60.0, Clock(), Clock(5000.0))
    old = Entry("/old", "1", changed_unix_s=5000.0 - SETTLES_S)
    new = Entry("/new", "1", changed_unix_s=4999.0)
    remote = Entry("s3://b/one", "1")
    assert taken(following, old, new, remote) == ["/old", "s3://b/one"]


def test_a_file_that_grows_is_left_until_it_stays_the_same() -> None:
    clock, wall = Clock(), Clock(5000.0)
    following = Following(60.0, clock, wall)
    for size in range(5):
        assert not taken(following, Entry("/a", str(size), changed_unix_s=wall.now_s))
        wall.now_s += 5
        clock.now_s += 5
    wall.now_s += SETTLES_S
    assert taken(following, Entry("/a", "4", changed_unix_s=wall.now_s - SETTLES_S)) == ["/a"]


def test_a_file_from_the_future_is_taken_when_it_stayed_the_same_in_front_of_our_eyes() -> None:
    clock = Clock()
    following = Following(60.0, clock, Clock(5000.0))
    ahead = Entry("/a", "1", changed_unix_s=9e9)
    assert not taken(following, ahead)
    clock.now_s += SETTLES_S / 2
    assert not taken(following, ahead)
    clock.now_s += SETTLES_S / 2
    assert taken(following, ahead) == ["/a"]
    assert not taken(following, Entry("/a", "2", changed_unix_s=9e9))


def test_a_file_that_is_touched_again_and_again_is_taken_all_the_same() -> None:
    clock = Clock()
    following = Following(10.0, clock, lambda: clock.now_s)
    taken_s = []
    for number in range(1000):
        if taken(following, Entry("/a", str(number), changed_unix_s=clock.now_s - 1)):
            taken_s.append(clock.now_s)
        clock.now_s += 5
    assert [later - before for before, later in pairwise(taken_s)] == [LONGEST_UNSETTLED_S] * 7
    assert taken_s[0] - LONGEST_UNSETTLED_S == Clock().now_s


def test_what_failed_for_reasons_that_may_have_gone_is_tried_again_ever_later() -> None:
    clock = Clock()
    following = Following(10.0, clock)
    known = {"/net": Known("1", True, "SOURCE_UNREADABLE"), "/bad": Known("1", True, "FILE_EMPTY")}
    pauses, since_s = [], clock.now_s
    for _ in range(5000):
        if following.due(known):
            pauses.append(clock.now_s - since_s)
            since_s = clock.now_s
        clock.now_s += 5
    assert pauses[:5] == [10, 20, 40, 80, 160]
    assert max(pauses) == LONGEST_PAUSE_S
    for _ in range(1100):  # more than a float has powers of two
        clock.now_s += LONGEST_PAUSE_S
        assert following.due(known) == {"/net"}


def test_a_new_version_begins_anew_and_a_success_is_forgotten() -> None:
    clock = Clock()
    following = Following(10.0, clock)
    assert not following.due({"/a": Known("1", True, "SOURCE_UNREADABLE")})
    clock.now_s += 10
    assert not following.due({"/a": Known("2", True, "SOURCE_UNREADABLE")})
    clock.now_s += 10
    assert following.due({"/a": Known("2", True, "SOURCE_UNREADABLE")}) == {"/a"}
    assert not following.due({"/a": Known("2", False)})
    assert not following.due({"/a": Known("2", True, "SOURCE_UNREADABLE")})
