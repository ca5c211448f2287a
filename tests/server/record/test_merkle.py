"""Hashes and proofs of the tree, against published values and another implementation of both."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.record.tree.merkle import (
    EMPTY_ROOT,
    ProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_hash,
    require_consistency,
    require_inclusion,
)
from loragate_server.record.tree.tree import grown, root_of_edge

# The inputs and roots with which implementations of RFC 6962 are tested everywhere.
INPUTS = [
    bytes.fromhex(each) for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
]
INPUTS.append(bytes(range(0x60, 0x70)))
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
}
CONSISTENCY = {
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
}


class Leaves:
    """Subtrees, hashed from the leaves each time."""

    def __init__(self, entries: list[bytes]) -> None:
        self.hashes = [leaf_hash(entry) for entry in entries]

    def __call__(self, level: int, index: int) -> bytes:
        if level == 0:
            return self.hashes[index]
        return node_hash(self(level - 1, 2 * index), self(level - 1, 2 * index + 1))


def by_definition(hashes: list[bytes]) -> bytes:
    """The root as RFC 6962, 2.1 defines it, written once more."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    left, right = by_definition(hashes[:k]), by_definition(hashes[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    leaves = Leaves(INPUTS[:size])

    assert range_hash(leaves, 0, size).hex() == ROOTS[size]
    assert root_of_edge(grown([], 0, leaves.hashes, lambda *_: None)).hex() == ROOTS[size]


@pytest.mark.parametrize("place", INCLUSION)
def test_inclusion_proofs_are_the_published_ones(place: tuple[int, int]) -> None:
    assert tuple(x.hex() for x in inclusion_proof(Leaves(INPUTS), *place)) == INCLUSION[place]


@pytest.mark.parametrize("sizes", CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(sizes: tuple[int, int]) -> None:
    assert tuple(x.hex() for x in consistency_proof(Leaves(INPUTS), *sizes)) == CONSISTENCY[sizes]


def test_every_proof_in_every_small_tree_holds_and_no_changed_one_does() -> None:
    leaves = Leaves([b"%d" % n for n in range(33)])
    roots = [by_definition(leaves.hashes[:size]) for size in range(34)]
    for size in range(1, 34):
        for index in range(size):
            proof = inclusion_proof(leaves, index, size)
            require_inclusion(leaves.hashes[index], index, size, proof, roots[size])
            for wrong in (proof[:-1], [*proof, roots[size]], [roots[1], *proof[1:]]):
                if wrong != proof:
                    with pytest.raises(ProofError):
                        require_inclusion(leaves.hashes[index], index, size, wrong, roots[size])
            if size > 1:
                with pytest.raises(ProofError):
                    require_inclusion(
                        leaves.hashes[index], (index + 1) % size, size, proof, roots[size]
                    )
        for old in range(size + 1):
            proof = consistency_proof(leaves, old, size)
            require_consistency(old, size, proof, roots[old], roots[size])
            for wrong in (proof[:-1], [*proof, roots[size]], [EMPTY_ROOT, *proof[1:]]):
                if wrong != proof:
                    with pytest.raises(ProofError):
                        require_consistency(old, size, wrong, roots[old], roots[size])
            if old:
                with pytest.raises(ProofError):
                    require_consistency(old, size, proof, EMPTY_ROOT, roots[size])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_a_tree_that_grew_in_steps_is_the_tree_that_was_made_at_once(steps: list[int]) -> None:
    leaves = [leaf_hash(b"%d" % n) for n in range(sum(steps))]
    edge: list[list[bytes]] = []
    size = 0
    for step in steps:
        edge = grown(edge, size, leaves[size : size + step], lambda *_: None)
        size += step
        assert root_of_edge(edge) == by_definition(leaves[:size])
