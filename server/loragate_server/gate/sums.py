"""Which of several changes, added up, have something of known ones.

Any two or more may be active together, which makes sums without number. But every sum lies in the
cone of the changes, all of what they come to at any amounts from 0 on, and few known changes are
near it: no sum can be like the others. Where the sums are too many all the same, changes are left
out that are neither like such a known one nor to be had from the others of the request: they only
make a sum less like it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from math import prod

import numpy as np
import numpy.typing as npt

from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.gate.kinship import CANDIDATE_COSINE, Change, Sketches

RELATED = 0.05
"""A change of which the other adapters' make up such a share, squared and beyond what chance has,
may cancel what hides something in them."""
TOUCHES = 0.05
"""From here on a change may have something of a known one: eight that have less come to half of
what makes a part."""
LEFT_OUT = 0.03
"""Share of a known change, squared and beyond chance, that may be lost with what is left out."""
MOST_SUMS = 65_536
MOST_PRODUCTS = 50_000_000
"""Sums for some known changes, and sums times known changes (and 200 more) for one question: about
a second."""
MOST_FITTED = 1_500_000_000
"""Known changes and owners that are fitted by those of a question, times their number cubed: three
seconds, for 64 changes and 5,000 known ones."""
MOST_KEPT = MOST_EXACT = 8192
"""Sums that are handed out for some known changes. Where there are no more, all are looked at."""
_EACH = 200
_AT_ONCE = 2048
_ROUNDED = 1e-13
"""Below it a direction is the rounding of others."""
_CANCELLED = 1e-10
"""Below such a part of the loudest change a sum is what rounding has left of nothing."""

_HALVES: tuple[slice, ...] = (slice(None), slice(SKETCH_DIMENSIONS))
"""All of a change, and its denoiser alone: what is changed of text encoders may have no effect."""

Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Wanted = Callable[[Indices, Sketches], Flags]


@dataclass(frozen=True)
class Related:
    """Sums of changes that are related by some known ones.

    Attributes:
        sums: [(indices of changes), ...] of those like a known one, the most alike first.
        cosines: float32 [sums, known], what each has in common with each of these, of all of it or
            of its denoiser alone.
        known: [known], the indices of all that any sum may be like.
        nearest: that known one which a sum is most like; any of them where no sum is like one.
        whole: whether there are no further sums, which were too many to look at.
    """

    sums: Sequence[tuple[int, ...]]
    cosines: Sketches
    known: Indices
    nearest: int
    whole: bool


class Known:
    """Known changes, float64: noise that cancels may be louder than what is left.

    Args:
        changes: [known, dimensions].
    """

    def __init__(self, changes: Sketches) -> None:
        exact = changes.astype(np.float64)
        # where nothing of a text encoder is changed, the two are one
        self.has_text = bool(exact[:, SKETCH_DIMENSIONS:].any())
        self.halves = [exact[:, cut] for cut in _HALVES]
        self.norms = [np.linalg.norm(half, axis=1) for half in self.halves]


class _Half:
    """Changes and known ones, in as few dimensions as the changes span."""

    def __init__(self, changes: Change, known: Change, norms: Change) -> None:
        sizes = np.linalg.norm(changes, axis=1)
        rays = _shares(changes, sizes)
        basis = _basis(rays)
        self.rays = rays @ basis.T
        self.changes = self.rays * sizes[:, None]
        self.loudest = float(sizes.max(initial=0.0))
        self.known = _shares(known @ basis.T, norms)

    @cached_property
    def near(self) -> Indices:
        """The known ones that are near the span of the changes; near its cone are fewer."""
        return np.flatnonzero(np.linalg.norm(self.known, axis=1) >= CANDIDATE_COSINE)

    def reach(self, known: int, some: Flags) -> float:
        """The most that a known one has in common with what some changes come to.

        At any amounts from 0 on, so that no sum of theirs has more.
        """
        from scipy.optimize import nnls

        if not some.any() or not self.rays.shape[1]:
            return 0.0
        try:
            amounts, _ = nnls(self.rays[some].T, self.known[known])
        except RuntimeError:  # it did not come to an end
            return 1.0
        return float(np.linalg.norm(amounts @ self.rays[some]))

    def related(self, own: Indices) -> Flags:
        """Of each change, whether the other owners' have a share of it, all of them together."""
        found = np.zeros(len(own), dtype=bool)
        for one in np.unique(own):
            others = _basis(self.rays[own != one])
            shares = np.sum((self.rays[own == one] @ others.T) ** 2, axis=1)
            found[own == one] = shares >= RELATED + len(others) / SKETCH_DIMENSIONS
        return found

    def touching(self, known: Indices) -> Flags:
        """Of each change, whether it has something of each of some known ones; [n, known]."""
        touching: Flags = self.rays @ self.known[known].T >= TOUCHES
        return touching

    def cosines(self, taken: Change, known: Indices) -> Change:
        """Of sums, [sums, n] ones and zeros, with some of the known changes."""
        sums = taken @ self.changes
        sizes = np.linalg.norm(sums, axis=1)
        sizes[sizes <= _CANCELLED * self.loudest] = 0.0
        return _shares(sums, sizes) @ self.known[known].T


def alike_sums(
    owners: Sequence[int], changes: Change, known: Known, wanted: Wanted
) -> Iterator[Related]:
    """The sums of two or more changes, of different owners, that are like some known ones.

    Args:
        owners: of each change, whose it is; of one owner one change is active at once.
        changes: float64 [n, dimensions].
        known: what they are held against.
        wanted: of the known ones with these indices and the cosines of sums with each, which sums
            may matter.
    """
    own = np.asarray(owners, dtype=np.intp)
    few = MOST_FITTED // len(own) ** 3 - len(np.unique(own))
    halves = _halves(changes, known) if few > 0 else ()
    near = np.unique(np.concatenate([np.zeros(0, np.intp), *(half.near for half in halves)]))
    if len(near) > few:
        nearest = int(near[0]) if len(near) else 0
        yield Related((), np.zeros((0, len(near)), np.float32), near, nearest, whole=False)
        return
    search = _Search(halves, own, _reached(halves, near), wanted)
    if not len(search.reached):
        return
    if prod(int(count) + 1 for count in np.unique(own, return_counts=True)[1]) <= MOST_EXACT:
        yield search.among(_sums(_choices(own, own >= 0)), slice(None))
    else:
        yield from search.by_groups()


class _Search:
    """Looks through sums for those that are like some of the known changes within reach."""

    def __init__(
        self, halves: Sequence[_Half], own: Indices, reached: Indices, wanted: Wanted
    ) -> None:
        self.reached = reached
        self._halves = halves
        self._own = own
        self._wanted = wanted
        self._best = np.zeros(len(reached))
        self._best_sums: list[tuple[int, ...]] = [()] * len(reached)

    def by_groups(self) -> Iterator[Related]:
        """Those known ones together in whose sums the same changes count."""
        counting = _counting(self._halves, self._own, self.reached)
        groups, group_of = np.unique(counting, axis=1, return_inverse=True)
        left = MOST_PRODUCTS
        for number, group in enumerate(groups.T):
            choices = _choices(self._own, group)
            if len(choices) > 1:
                of_group = np.flatnonzero(group_of.ravel() == number)
                cost = _EACH + len(of_group)
                most = min(MOST_SUMS, left // cost)
                sums = _sums(choices)
                found = self.among(islice(sums, most), of_group)
                left -= min(most, prod(len(one) + 1 for one in choices)) * cost
                yield replace(found, whole=found.whole and next(sums, None) is None)
        yield self.among(self._fuller(), slice(None))

    def among(self, sums: Iterator[tuple[int, ...]], some: Indices | slice) -> Related:
        """Of these sums, those that are like some of the known ones, by place."""
        found: list[tuple[int, ...]] = []
        cosines = np.zeros((0, len(self.reached)), np.float32)
        whole = True
        while further := list(islice(sums, _AT_ONCE)):
            taken = np.zeros((len(further), len(self._own)))
            for row, there in enumerate(further):
                taken[row, there] = 1.0
            first = self._cosines(taken, self.reached[some])
            self._keep_best(further, first, some)
            alike = np.flatnonzero(first.max(axis=1) >= CANDIDATE_COSINE)
            more = self._cosines(taken[alike], self.reached).astype(np.float32)
            wanted = self._wanted(self.reached, more)
            cosines = np.concatenate([cosines, more[wanted]])
            found += [further[row] for row in alike[wanted]]
            order = np.argsort(-cosines.max(axis=1), kind="stable")[:MOST_KEPT]
            whole &= len(order) == len(found)
            found, cosines = [found[row] for row in order], cosines[order]
        nearest = self.reached[some][0] if not found else self.reached[np.argmax(cosines[0])]
        return Related(found, cosines, self.reached, int(nearest), whole)

    def _cosines(self, taken: Change, known: Indices) -> Change:
        found: Change = np.max([half.cosines(taken, known) for half in self._halves], axis=0)
        return found

    def _keep_best(
        self, sums: Sequence[tuple[int, ...]], cosines: Change, some: Indices | slice
    ) -> None:
        places, rows = np.arange(len(self.reached))[some], np.argmax(cosines, axis=0)
        for at, (place, row) in enumerate(zip(places, rows, strict=True)):
            if cosines[row, at] > self._best[place]:
                self._best[place], self._best_sums[place] = cosines[row, at], sums[row]

    def _fuller(self) -> Iterator[tuple[int, ...]]:
        """What is most like each known one, with those left out that make it more so."""
        singles = np.argmax(self._cosines(np.eye(len(self._own)), self.reached), axis=0)
        told = set[tuple[int, ...]]()
        for place in range(len(self.reached)):
            for there in ((int(singles[place]),), self._best_sums[place]):
                full = self._filled(there, self.reached[[place]])
                if len(full) > 1 and full not in told:
                    told.add(full)
                    yield full

    def _filled(self, there: tuple[int, ...], known: Indices) -> tuple[int, ...]:
        """A sum with each further change that makes it more like a known one, the best first."""
        while there:
            free = np.flatnonzero(~np.isin(self._own, self._own[list(there)]))
            taken = np.zeros((len(free) + 1, len(self._own)))
            taken[:, there] = 1.0
            taken[np.arange(len(free)), free] = 1.0
            cosines = self._cosines(taken, known)[:, 0]
            row = int(np.argmax(cosines))
            if cosines[row] <= cosines[-1]:
                break
            there = (*there, int(free[row]))
        return tuple(sorted(there))


def _halves(changes: Change, known: Known) -> list[_Half]:
    """All of the changes and their denoisers alone; only these where they are all."""
    both = known.has_text or bool(changes[:, SKETCH_DIMENSIONS:].any())
    cuts = slice(None) if both else slice(1, None)
    pairs = zip(_HALVES[cuts], known.halves[cuts], known.norms[cuts], strict=True)
    return [_Half(changes[:, cut], half, norms) for cut, half, norms in pairs]


def _reached(halves: Sequence[_Half], near: Indices) -> Indices:
    """Of some known ones, those that sums may be like."""
    every = np.ones(len(halves[0].rays), dtype=bool)
    within = [any(half.reach(one, every) >= CANDIDATE_COSINE for half in halves) for one in near]
    reached: Indices = near[np.array(within, dtype=bool)]
    return reached


def _counting(halves: Sequence[_Half], own: Indices, reached: Indices) -> Flags:
    """Which changes count in sums that are like each of some known ones; [n, reached]."""
    every = np.ones(len(own), dtype=bool)
    chance = len(own) / SKETCH_DIMENSIONS / 4
    found: Flags = np.zeros((len(own), len(reached)), dtype=bool)
    for half in halves:
        found |= half.touching(reached) | half.related(own)[:, None]
    for number, one in enumerate(reached):
        some = found[:, number].copy()
        for half in halves:
            whole, rest = half.reach(one, every), half.reach(one, ~some)
            lost = whole**2 - half.reach(one, some) ** 2
            if whole >= CANDIDATE_COSINE and (lost > LEFT_OUT + chance or rest >= CANDIDATE_COSINE):
                found[:, number] = True  # many that have little of it each
    return found


def _choices(own: Indices, some: Flags) -> list[list[int]]:
    """Of each owner, which of some changes are its."""
    return [np.flatnonzero(some & (own == one)).tolist() for one in np.unique(own[some])]


def _sums(choices: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Every choice of two or more."""
    for some in product(*((None, *choice) for choice in choices)):
        there = tuple(index for index in some if index is not None)
        if len(there) > 1:
            yield there


def _shares(changes: Change, sizes: Change) -> Change:
    """Each by its size; 0 where that is 0."""
    sizes = sizes[:, None]
    return np.divide(changes, sizes, out=np.zeros_like(changes), where=sizes > 0)


def _basis(rays: Change) -> Change:
    """Directions that span what these span, [few, dimensions]."""
    if not len(rays):
        return rays
    _, sizes, basis = np.linalg.svd(rays, full_matrices=False)
    found: Change = basis[sizes > _ROUNDED]
    return found
