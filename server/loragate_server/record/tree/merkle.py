"""The Merkle tree of RFC 6962 and RFC 9162 over SHA-256: hashes, proofs, and what checks them.

A tree is known by a function that gives the hashes of its full subtrees, so nothing here minds
where they are kept. All hashes are 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]
"""(level, index) to the hash over leaves [index * 2**level, (index + 1) * 2**level)."""


class ProofError(ValueError):
    """A proof does not show what it should; the text says how."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(nodes: Sequence[bytes]) -> bytes:
    """The root over a row of nodes of one height; the last one may be lower than the others."""
    if not nodes:
        return EMPTY_ROOT
    if len(nodes) == 1:
        return nodes[0]
    middle = _split(len(nodes))
    return node_hash(root_of(nodes[:middle]), root_of(nodes[middle:]))


def range_hash(subtree: Subtree, begin: int, end: int) -> bytes:
    """The tree hash over leaves [begin, end), as RFC 6962 splits them."""
    count = end - begin
    if count == 0:
        return EMPTY_ROOT
    level = count.bit_length() - 1
    if count == 1 << level and begin % count == 0:
        return subtree(level, begin >> level)
    middle = begin + _split(count)
    return node_hash(range_hash(subtree, begin, middle), range_hash(subtree, middle, end))


def inclusion_proof(subtree: Subtree, index: int, size: int) -> list[bytes]:
    """The audit path of a leaf in the tree of `size` leaves, from the leaf to the root.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    proof, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(range_hash(subtree, middle, end))
            end = middle
        else:
            proof.append(range_hash(subtree, begin, middle))
            begin = middle
    return proof[::-1]


def consistency_proof(subtree: Subtree, old: int, new: int) -> list[bytes]:
    """Shows that the first `old` leaves of the tree of `new` leaves are the tree of `old`.

    Raises:
        ValueError: the old tree is the larger one.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not continue one of {old}")
    if old in (0, new):
        return []
    proof, begin, end = [], 0, new
    known = True  # whether the part that is left of [begin, end) is the old tree as a whole
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(range_hash(subtree, middle, end))
            end = middle
        else:
            proof.append(range_hash(subtree, begin, middle))
            begin, known = middle, False
    if not known:
        proof.append(range_hash(subtree, begin, end))
    return proof[::-1]


def require_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Holds an audit path to a root (RFC 9162, 2.1.3.2).

    Raises:
        ProofError: the leaf is not at this place of the tree with this root.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    place, last, found = index, size - 1, leaf
    for one in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if place & 1 or place == last:
            found = node_hash(one, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, one)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ProofError("the inclusion proof is too short")
    if found != root:
        raise ProofError("the inclusion proof leads to another root")


def require_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Holds two roots together (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: the tree with the new root does not continue the one with the old root.
    """
    if not 0 <= old <= new:
        raise ProofError(f"a tree of {new} leaves does not continue one of {old}")
    if old in (0, new):
        if proof:
            raise ProofError("the consistency proof is too long")
        if old == new and old_root != new_root:
            raise ProofError("two trees of one size have different roots")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is too short")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for one in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if place & 1 or place == last:
            first, second = node_hash(one, first), node_hash(one, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, one)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ProofError("the consistency proof is too short")
    if first != old_root:
        raise ProofError("the consistency proof leads to another old root")
    if second != new_root:
        raise ProofError("the consistency proof leads to another new root")


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)
