"""Who is let in when all places are taken, and who makes room."""

from __future__ import annotations

from functools import partial

import pytest

from loragate_server.places import Places


def test_who_has_kept_a_place_waiting_longest_makes_room_for_one_who_comes() -> None:
    places, out = Places(2), []
    for name in ("first", "second", "third"):
        assert places.enter("peer", partial(out.append, name)) is not None
    assert out == ["first"]
    assert len(places.taken) == 2


def test_one_idle_crowd_makes_room_before_a_single_peer_that_is_older() -> None:
    places, out = Places(3), []
    for name in ("alone", "crowd", "crowd", "new"):
        places.enter(name, partial(out.append, name))
    assert out == ["crowd"]


def test_one_for_whom_the_server_works_is_never_sent_away() -> None:
    places, out = Places(1), []
    place = places.enter("peer", partial(out.append, "busy"))
    assert place is not None
    place.works()
    assert places.enter("other", partial(out.append, "other")) is None
    place.waits()
    assert places.enter("other", partial(out.append, "other")) is not None
    assert out == ["busy"]


def test_a_place_that_was_taken_away_comes_back_for_nothing() -> None:
    places = Places(1)
    first = places.enter("peer", lambda: None)
    second = places.enter("peer", lambda: None)
    assert first is not None
    assert second is not None
    first.waits()
    first.leave()
    assert places.taken == {second}
    assert list(places.waiting) == [second]


def test_there_is_no_port_without_a_place() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Places(0)
