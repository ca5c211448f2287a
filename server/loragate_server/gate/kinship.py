"""How much of some known changes is in another one, by their sketches. Numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loragate_server.audit.evidence import SKETCH_DIMENSIONS

Sketches = npt.NDArray[np.float32]
Change = npt.NDArray[np.float64]

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
MOST_CANDIDATES = 64
"""The most alike ones; more would share what a change has of their family until none has any."""


def change_of(sketch: bytes, denoiser: float, text_encoder: float) -> Change:
    """What a sketch says of an adapter at its two strengths, float64 [2048].

    What is infinite there says nothing, and would hide what is told beside it.
    """
    numbers = np.frombuffer(sketch, dtype="<f4").astype(np.float64)
    numbers[~np.isfinite(numbers)] = 0.0
    change = np.zeros(2 * SKETCH_DIMENSIONS)
    change[: len(numbers)] = numbers
    change[:SKETCH_DIMENSIONS] *= denoiser
    change[SKETCH_DIMENSIONS:] *= text_encoder
    return change


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


UNSEEN = Part(-1, 0.0, 0.0, copy=False)
"""Stands for what sums of changes may have that were too many to look at."""


def parts_of(change: Change, known: Sketches) -> tuple[Part, ...]:
    """The known changes that are in a change; where it is a copy, the most alike one first.

    Args:
        change: [dimensions], at the strength that is asked about.
        known: float32 [n, dimensions], each at the strength that was blocked.

    Between `PART_COSINE` and `COPY_COSINE`, the non-negative least squares fit of the change by
    the known ones says how much of each there is.
    """
    change = np.asarray(change, np.float64)
    if not change.any() or not len(known):
        return ()
    # float32 would overflow in the squares of what is large where the model does not look
    norms = np.sqrt(np.einsum("ij,ij->i", known, known, dtype=np.float64))
    norm, cosines = _alike(change, known, norms)
    alone = np.divide(cosines * norm, norms, out=np.zeros_like(norms), where=norms > 0)
    copies = cosines >= COPY_COSINE
    enough = np.flatnonzero(copies & (alone >= ENOUGH))
    if len(enough):
        best = int(enough[np.argmax(cosines[enough])])
        copy = Part(best, min(float(cosines[best] ** 2), 1.0), float(alone[best]), copy=True)
        return (copy, *_beside(copy, change, known, np.where(copies, 0.0, norms)))
    # a weak copy says nothing, and must not hide what else is in it
    found = _held(change, known, np.where(copies, 0.0, norms))
    if sum(one.share for one in found) < PART_COSINE**2:
        # a family of known ones may explain it together, and none of them alone
        best = int(np.argmax(np.where(copies, 0.0, cosines)))
        if copies[best] or cosines[best] < PART_COSINE or alone[best] < LEAST_AMOUNT:
            return ()
        found = [Part(best, float(cosines[best] ** 2), float(alone[best]), copy=False)]
    return tuple(sorted(found, key=lambda one: -one.share))


def _alike(change: Change, known: Sketches, norms: Change) -> tuple[float, Change]:
    """The norm of a change, and its cosines with known ones; 0 where their norm is given as 0."""
    norm = float(np.linalg.norm(change))
    inner = (known @ (change / norm).astype(np.float32)).astype(np.float64)
    return norm, np.divide(inner, norms, out=np.zeros_like(norms), where=norms > 0)


def _held(change: Change, known: Sketches, norms: Change) -> list[Part]:
    """How much of each known one is in a change, by a fit of those that are alike."""
    norm, cosines = _alike(change, known, norms)
    candidates = np.flatnonzero(cosines >= CANDIDATE_COSINE)
    candidates = candidates[np.argsort(-cosines[candidates], kind="stable")[:MOST_CANDIDATES]]
    if not len(candidates):
        return []
    weights = _fit(known[candidates] / norms[candidates, None], change / norm)
    shares = weights * cosines[candidates]
    amounts = weights * norm / norms[candidates]
    return [
        Part(int(index), float(share), float(amount), copy=False)
        for index, share, amount in zip(candidates, shares, amounts, strict=True)
        if amount >= LEAST_AMOUNT and share >= CANDIDATE_COSINE**2
    ]


def _beside(copy: Part, change: Change, known: Sketches, norms: Change) -> Iterator[Part]:
    """What a copy holds besides, of those whose norm is not given as 0."""
    rest = change - copy.amount * known[copy.index].astype(np.float64)
    if not rest.any():
        return
    left = float(np.linalg.norm(rest) / np.linalg.norm(change)) ** 2
    for part in _held(rest, known, norms):
        if (share := part.share * left) >= PART_COSINE**2:
            yield replace(part, share=share)


def _fit(known: Change, change: Change) -> Change:
    """The amounts, none below 0, whose sum comes nearest to the change."""
    from scipy.optimize import nnls

    amounts, _ = nnls(known.T.astype(np.float64), change)
    return np.asarray(amounts, dtype=np.float64)
