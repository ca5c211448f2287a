"""Concepts that are not told one by one are in the evidence all the same, to the last bit."""

from __future__ import annotations

import base64
import json
import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.audit.evidence import ConceptEvidence, Evidence
from loragate_server.audit.packed import whole, without
from loragate_server.record.codec import decode_evidence, encode_evidence, to_json
from testkit import evidence as made

numbers = st.floats(allow_nan=False)
maybe = st.none() | numbers
concepts = st.builds(
    ConceptEvidence,
    concept_id=st.text(max_size=8),
    concept_name=st.text(st.characters(codec="utf-8"), max_size=8),
    category=st.sampled_from(["character", "harm"]),
    severity=st.sampled_from(["high", "critical"]),
    score=numbers,
    p_value=numbers,
    degree=numbers,
    error_change_by_time=st.dictionaries(st.text(max_size=4), numbers, max_size=2),
    family_p_value=maybe,
    screen_score=maybe,
    response_score=maybe,
    degree_p_value=maybe,
    stage=st.sampled_from(["screen", "response"]),
    use=st.integers(0, 63),
    hands=st.integers(0, 9),
)


def library(count: int, seed: int = 0) -> tuple[ConceptEvidence, ...]:
    """What a screen says of so many concepts."""
    chance = random.Random(seed)
    shares = [(1 + place) / 201 for place in range(200)]
    every = (
        (f"a-concept-with-a-name-{place}", chance.gauss(0, 1), chance.choice(shares))
        for place in range(count)
    )
    return tuple(
        made.concept(
            score,
            share,
            concept_id=name,
            concept_name=name.replace("-", " ").title(),
            degree=chance.random() * 100,
            error_change_by_time={},
            family_p_value=share,
            screen_score=score,
            degree_p_value=share,
            stage="screen",
            hands=3,
        )
        for name, score, share in every
    )


def same(one: Evidence, other: Evidence) -> bool:
    return to_json(encode_evidence(one)) == to_json(encode_evidence(other))


@given(st.lists(concepts, max_size=12), st.sets(st.integers(0, 11)))
def test_whatever_is_packed_comes_out_to_the_last_bit(
    every: Sequence[ConceptEvidence], places: set[int]
) -> None:
    found = made.evidence(*every)
    told = {id(one) for place, one in enumerate(every) if place in places}
    small = without(found, lambda concept: id(concept) in told)
    assert [id(one) for one in small.concepts] == [id(one) for one in every if id(one) in told]
    assert whole(small) == found
    assert same(whole(small), found)
    assert whole(decode_evidence(json.loads(to_json(encode_evidence(small))))) == found


def test_numbers_that_are_none_come_out_as_such() -> None:
    every = [made.concept(value, 0.5, concept_id=f"c{value}") for value in (math.nan, math.inf)]
    found = whole(without(made.evidence(*every), lambda _: False))
    assert math.isnan(found.concepts[0].score)
    assert found.concepts[1].score == math.inf


def test_evidence_of_which_everything_is_told_is_written_as_it_was() -> None:
    found = made.evidence(*library(3))
    assert without(found, lambda _: True) == found
    assert "packed" not in encode_evidence(found)


def test_packing_again_keeps_what_was_packed() -> None:
    found = made.evidence(*library(20))
    once = without(found, lambda one: one.score > 0)
    assert whole(without(once, lambda one: one.score > 1)) == found


def test_five_thousand_concepts_take_some_fifty_bytes_each() -> None:
    found = made.evidence(*library(5000))
    small = without(found, lambda _: False)
    assert len(small.packed) < 60 * 5000
    assert len(to_json(encode_evidence(found))) > 400 * 5000


def resealed(packed: str, change: object) -> str:
    data = zlib.decompress(base64.b64decode(packed))
    return base64.b64encode(zlib.compress(change(data))).decode()  # type: ignore[operator]


def with_head(packed: str, change: Callable[[dict[str, Any]], object]) -> str:
    """The same text, with another head."""

    def changed(data: bytes) -> bytes:
        end = 4 + int.from_bytes(data[:4], "big")
        head = json.loads(data[4:end])
        change(head)
        text = json.dumps(head).encode()
        return len(text).to_bytes(4, "big") + text + data[end:]

    return resealed(packed, changed)


def test_what_an_earlier_version_did_not_measure_has_its_default() -> None:
    found = made.evidence(*(replace(one, hands=0) for one in library(9)))
    small = without(found, lambda one: one.score > 1)
    older = with_head(small.packed, lambda head: head["others"].pop("hands"))
    newer = with_head(small.packed, lambda head: head["others"].update(colour={"all": "red"}))
    assert whole(replace(small, packed=older)) == whole(replace(small, packed=newer)) == found


def test_a_damaged_text_is_refused() -> None:
    small = without(made.evidence(*library(9)), lambda one: one.score > 1)
    wrong = [
        "!",
        small.packed[:-8],
        small.packed[8:],
        resealed(small.packed, lambda data: data[:-1]),
        resealed(small.packed, lambda data: data + b"12345678"),
        resealed(small.packed, lambda data: data.replace(b'"version":1', b'"version":2')),
        resealed(small.packed, lambda data: data.replace(b'"degree"', b'"dagree"')),
        resealed(small.packed, lambda data: b"\xff" * len(data)),
        with_head(small.packed, lambda head: head["numbers"].update(degree=[99])),
        with_head(small.packed, lambda head: head.update(others=[])),
        with_head(small.packed, lambda head: head["told"].__setitem__(0, "first")),
        with_head(small.packed, lambda head: head["others"].pop("concept_id")),
        base64.b64encode(zlib.compress(bytes(65 << 20))).decode(),
    ]
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
            whole(replace(small, packed=text))


def test_a_text_that_belongs_to_other_evidence_is_refused() -> None:
    small = without(made.evidence(*library(9)), lambda one: one.score > 1)
    with pytest.raises(ValueError, match=r"fit|zip"):
        whole(replace(small, concepts=()))
