"""How much of some known changes is in another one, by their sketches. Numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sketches = npt.NDArray[np.float32]

COPY_COSINE = 0.9
"""From here on two changes are one: what is rounded or resized stays above, and of 93,096 pairs of
adapters that were trained apart the most alike had 0.36."""
PART_COSINE = 0.3
"""From here on a change holds others: the square root of their shares. A merge of eight equal parts
has 0.35 with each of them."""
CANDIDATE_COSINE = 0.2
"""What a change has to have in common with a known one to be looked at: five standard deviations of
changes that have nothing in common. Without it, many known ones would explain anything."""
ENOUGH = 0.75
"""A copy counts where it carries so much of what was blocked: the same file may be allowed at a
lower strength, and its copy is judged like it."""
LEAST_AMOUNT = 0.1
"""Below a tenth of what was blocked nothing is said of a part."""


def as_numbers(sketch: bytes) -> Sketches:
    """A sketch as float32 [1024]."""
    return np.frombuffer(sketch, dtype="<f4")


@dataclass(frozen=True)
class Part:
    """What a change has of a known one.

    Attributes:
        index: of the known one.
        share: of the change's square norm, 0 to 1.
        amount: times of the known change.
        copy: whether it is the known one again.
    """

    index: int
    share: float
    amount: float
    copy: bool


def parts_of(change: Sketches, known: Sketches) -> tuple[Part, ...]:
    """The known changes that are in a change; the most alike one where it is a copy.

    Args:
        change: float32 [dimensions], at the strength that is asked about.
        known: float32 [n, dimensions], each at the strength that was blocked.

    Between `PART_COSINE` and `COPY_COSINE`, the non-negative least squares fit of the change by
    the known ones says how much of each there is.
    """
    norm, norms = float(np.linalg.norm(change)), np.linalg.norm(known, axis=1)
    if not norm or not len(known):
        return ()
    inner = known @ change
    cosines = np.divide(inner, norms * norm, out=np.zeros_like(inner), where=norms > 0)
    best = int(np.argmax(cosines))
    if cosines[best] >= COPY_COSINE:
        amount = float(inner[best] / norms[best] ** 2)
        share = float(cosines[best] ** 2)
        return (Part(best, min(share, 1.0), amount, True),) if amount >= ENOUGH else ()
    candidates = np.flatnonzero(cosines >= CANDIDATE_COSINE)
    if not len(candidates):
        return ()
    amounts = _fit(known[candidates], change)
    shares = amounts * inner[candidates] / norm**2
    found = [
        Part(int(index), float(share), float(amount), False)
        for index, share, amount in zip(candidates, shares, amounts, strict=True)
        if amount >= LEAST_AMOUNT and share >= CANDIDATE_COSINE**2
    ]
    whole = sum(one.share for one in found)
    if whole < PART_COSINE**2:
        return ()
    return tuple(sorted(found, key=lambda one: -one.share))


def _fit(known: Sketches, change: Sketches) -> npt.NDArray[np.float64]:
    """The amounts, none below 0, whose sum comes nearest to the change."""
    from scipy.optimize import nnls

    amounts, _ = nnls(known.T.astype(np.float64), change.astype(np.float64))
    return np.asarray(amounts, dtype=np.float64)
