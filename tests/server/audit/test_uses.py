"""The ways of using a set of adapters, and what the gravest of them does to a verdict."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.adapter.adapter import Adapter, KeyCoverage
from loragate_server.adapter.reference import Strength
from loragate_server.audit.uses import MOST_USES, Member, TooManyUsesError, Use, uses_of

COVERAGE = KeyCoverage(2, 2, (), 1)


def adapter(number: int, *loaders: str) -> Adapter:
    return Adapter(f"{number:064x}", 1, "test", {}, COVERAGE, {}, loaders=loaders)


def shape(use: Use) -> tuple[tuple[int, float], ...]:
    """Which members are active, at which strengths."""
    return tuple((index, strength.denoiser) for index, _, strength in use.members)


def test_one_adapter_is_used_in_one_way() -> None:
    [use] = uses_of([Member.of(adapter(1), Strength(0.5))])
    assert shape(use) == ((0, 0.5),)
    assert use.loaders == ()


def test_a_set_is_used_together_and_each_member_is_judged_alone() -> None:
    found = uses_of([Member.of(adapter(1)), Member.of(adapter(2), Strength(2.0))])
    assert [shape(use) for use in found] == [((0, 1.0), (1, 2.0)), ((0, 1.0),), ((1, 2.0),)]


def test_an_adapter_that_may_be_left_out_is_left_out_too() -> None:
    optional = Member((adapter(3),), optional=True)
    found = uses_of([Member.of(adapter(1)), Member.of(adapter(2)), optional])
    assert {tuple(i for i, _ in shape(use)) for use in found} == {
        (0, 1, 2), (0, 1), (0,), (1,), (2,),
    }  # fmt: skip


def test_every_strength_and_sign_is_used_alone_and_together() -> None:
    either = Member((adapter(1),), (Strength(1.0), Strength(-1.5)))
    found = {shape(use) for use in uses_of([either, Member.of(adapter(2))])}
    assert found == {
        ((0, 1.0), (1, 1.0)), ((0, -1.5), (1, 1.0)), ((0, 1.0),), ((0, -1.5),), ((1, 1.0),),
    }  # fmt: skip


def test_loaders_that_read_a_file_otherwise_give_uses_of_their_own() -> None:
    first, second = adapter(1, "diffusers"), adapter(1, "comfyui", "a1111")
    found = uses_of([Member((first, second)), Member.of(adapter(2, "diffusers", "comfyui"))])
    by_loaders = {(shape(use), use.members[0][1] is first): use.loaders for use in found}
    assert by_loaders[((0, 1.0), (1, 1.0)), True] == ("diffusers",)
    assert by_loaders[((0, 1.0), (1, 1.0)), False] == ("comfyui",)
    # the third loader refuses the second file, so under it the first one is alone
    assert by_loaders[((0, 1.0),), False] == ("comfyui", "a1111")


def test_more_ways_than_can_be_judged_are_told() -> None:
    many = [Member((adapter(n),), optional=True) for n in range(7)]
    assert 2 ** len(many) > MOST_USES
    with pytest.raises(TooManyUsesError):
        uses_of(many)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from([1.0, -1.0, 0.5]), min_size=1, max_size=2, unique=True),
                  st.booleans()),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_whatever_the_server_loads_there_is_a_use_that_equals_it(
    drawn: list[tuple[list[float], bool]],
) -> None:
    members = [
        Member((adapter(n),), tuple(Strength(s, s) for s in strengths), optional=optional)
        for n, (strengths, optional) in enumerate(drawn)
    ]
    found = {shape(use) for use in uses_of(members)}
    ways = [[*strengths, *([None] if optional else [])] for strengths, optional in drawn]
    for picked in product(*ways):
        loaded = tuple((n, s) for n, s in enumerate(picked) if s is not None)
        assert not loaded or loaded in found
