"""Which of several changes, added up, have something of known ones.

Any two or more may be active together, which makes sums without number. But one that has nothing in
common with a known change, nor with any other of the request, only makes a sum less like it, so
that the sums without it say more; and most adapters have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from math import prod

import numpy as np
import numpy.typing as npt

from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.gate.kinship import CANDIDATE_COSINE, Change, Sketches

RELATED = 0.1
"""From here on, in either sense, two changes may cancel what hides something in each of them: three
standard deviations of changes that have nothing in common. Of k changes whose noise cancels, two
have at least 1 / (k - 1) in common."""
TOUCHES = 0.05
"""From here on a change may have something of a known one: eight that have less come to half of
what makes a part."""
MOST_SUMS = 65_536
MOST_PRODUCTS = 50_000_000
"""Sums, and sums times known changes, that are looked at for one question: about a second."""
MOST_KEPT = 4096
"""Sums that are like a known change and are handed out, of one group of known ones."""
_AT_ONCE = 2048

_HALVES = (slice(None), slice(SKETCH_DIMENSIONS))
"""All of a change, and its denoiser alone: what is changed of text encoders may have no effect."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Related:
    """Sums of changes that are related by some known ones.

    Attributes:
        sums: [(indices of changes), ...] of those like one of these, the most alike first.
        cosines: float32 [sums, known], what each has in common with each of these, of all of it or
            of its denoiser alone.
        known: [known], the indices of these.
        whole: whether there are no further sums, which were too many to look at.
    """

    sums: Sequence[tuple[int, ...]]
    cosines: Sketches
    known: npt.NDArray[np.intp]
    whole: bool

    @property
    def nearest(self) -> int:
        """That of these which a sum is most like; any of them where no sum is like one."""
        return int(self.known[np.argmax(self.cosines[0]) if len(self.sums) else 0])


class Known:
    """Known changes, float64: noise that cancels may be louder than what is left.

    Args:
        changes: [known, dimensions].
    """

    def __init__(self, changes: Sketches) -> None:
        exact = changes.astype(np.float64)
        self.halves = [exact[:, cut] for cut in _HALVES]
        self.norms = [np.linalg.norm(half, axis=1) for half in self.halves]


class _Half:
    """Products of changes with each other and with the known ones, made once."""

    def __init__(self, changes: Change, known: Change, norms: Change) -> None:
        self.gram = changes @ changes.T
        self.inner = changes @ known.T
        self.sizes = np.sqrt(np.diagonal(self.gram))
        self.norms = norms

    def related(self) -> Flags:
        """Of each two, whether they have something in common; [n, n]."""
        sizes = self.sizes[:, None] * self.sizes[None]
        related: Flags = (np.abs(self.gram) >= RELATED * sizes) & (sizes > 0)
        return related

    def touching(self) -> Flags:
        """Of each change, whether it has something of each known one; [n, known]."""
        sizes = self.sizes[:, None] * self.norms[None]
        touching: Flags = (self.inner >= TOUCHES * sizes) & (sizes > 0)
        return touching

    def cosines(self, taken: Change, known: npt.NDArray[np.intp]) -> Change:
        """Of sums, [sums, n] ones and zeros, with some of the known changes."""
        squares = np.einsum("si,ij,sj->s", taken, self.gram, taken, optimize=True)
        sizes = np.sqrt(np.maximum(squares, 0.0))[:, None] * self.norms[None, known]
        inner = taken @ self.inner[:, known]
        found: Change = np.divide(inner, sizes, out=np.zeros_like(inner), where=sizes > 0)
        return found


def alike_sums(owners: Sequence[int], changes: Change, known: Known) -> Iterator[Related]:
    """The sums of two or more changes, of different owners, that are like some known ones.

    Args:
        owners: of each change, whose it is; of one owner one change is active at once.
        changes: float64 [n, dimensions].
        known: what they are held against.
    """
    own = np.asarray(owners)
    halves = [
        _Half(changes[:, cut], half, norms)
        for cut, half, norms in zip(_HALVES, known.halves, known.norms, strict=True)
    ]
    apart = own[:, None] != own[None]
    linked = np.any([half.related() & apart for half in halves], axis=(0, 2))
    counting = np.any([half.touching() for half in halves], axis=0) | linked[:, None]
    groups, group_of = np.unique(counting, axis=1, return_inverse=True)
    left = MOST_PRODUCTS
    for number, group in enumerate(groups.T):
        choices = [np.flatnonzero(group & (own == one)).tolist() for one in np.unique(own[group])]
        if len(choices) > 1:
            of_group = np.flatnonzero(group_of.ravel() == number)
            most = min(MOST_SUMS, left // len(of_group))
            sums = _sums(choices)
            found = _alike(islice(sums, most), halves, of_group)
            left -= min(most, prod(len(one) + 1 for one in choices)) * len(of_group)
            yield replace(found, whole=found.whole and next(sums, None) is None)


def _sums(choices: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Every choice of two or more."""
    for some in product(*((None, *choice) for choice in choices)):
        there = tuple(index for index in some if index is not None)
        if len(there) > 1:
            yield there


def _alike(
    sums: Iterator[tuple[int, ...]], halves: Sequence[_Half], known: npt.NDArray[np.intp]
) -> Related:
    """Those that have something in common with a known change."""
    found: list[tuple[int, ...]] = []
    cosines = np.zeros((0, len(known)), np.float32)
    whole = True
    while some := list(islice(sums, _AT_ONCE)):
        taken = np.zeros((len(some), len(halves[0].gram)))
        for row, there in enumerate(some):
            taken[row, there] = 1.0
        best = np.max([half.cosines(taken, known) for half in halves], axis=0)
        alike = np.flatnonzero(best.max(axis=1) >= CANDIDATE_COSINE)
        cosines = np.concatenate([cosines, best[alike].astype(np.float32)])
        found += [some[row] for row in alike]
        order = np.argsort(-cosines.max(axis=1), kind="stable")[:MOST_KEPT]
        whole &= len(order) == len(found)
        found, cosines = [found[row] for row in order], cosines[order]
    return Related(found, cosines, known, whole)
