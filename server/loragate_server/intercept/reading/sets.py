"""What can be active together: from the sets that a server may load to what the gate is asked.

An extractor finds more than one server loads. What it adds must never count as company of what is
loaded: a LoRA that nobody applies would cancel one that is.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.reading.findings import Found

MOST_ADAPTERS = 64
"""Of more than these an audit does not tell which act together: it takes in no more, and alone they
are too many."""


def used_at(reference: AdapterReference, strengths: Iterable[Strength]) -> AdapterReference:
    """The same adapter at any of some strengths, each named once, the likeliest first."""
    first, *others = dict.fromkeys(strengths)
    return replace(reference, strength=first, also=tuple(others))


def settled(found: Sequence[Found], sets: Iterable[Collection[int]]) -> tuple[Found, ...]:
    """The adapters of a request as the gate has to judge them.

    An adapter of every set is certain; any other may be left out, unless it is the only one. The
    same file in adapters that are never active together is one adapter, which may be used at the
    strengths of each.

    Args:
        found: every adapter, with the strengths at which it may be used; optional where it is not
            known whether a set that names it really holds it.
        sets: by their numbers, adapters that a server may have active together. Empty ones do not
            matter.
    """
    if len(found) > MOST_ADAPTERS:
        return tuple(found)
    active = [frozenset(one) for one in sets if one]
    kept: list[tuple[Found, frozenset[int]]] = []
    for number, one in enumerate(found):
        within = frozenset(at for at, members in enumerate(active) if number in members)
        twin = next((at for at, other in enumerate(kept) if _apart(other, (one, within))), None)
        if twin is None:
            kept.append((one, within))
        else:
            kept[twin] = _joined(*kept[twin], one, within)
    everywhere = frozenset(range(len(active)))
    alone = len(kept) == 1
    return tuple(
        replace(one, reference=replace(one.reference, optional=not alone and may_be_left_out))
        for one, within in kept
        for may_be_left_out in [one.reference.optional or not active or within != everywhere]
    )


def by_source(found: Sequence[Found], sources: Sequence[Hashable]) -> tuple[Found, ...]:
    """The adapters of a request whose server reads some of several sources, each as a whole.

    Args:
        found: every adapter.
        sources: for each, where it comes from: a server reads all adapters of it, or none.
    """
    if len(found) > MOST_ADAPTERS:
        return tuple(found)
    each = [[n for n, source in enumerate(sources) if source == one] for one in set(sources)]
    return settled(found, [*each, range(len(found))])


def _apart(kept: tuple[Found, frozenset[int]], new: tuple[Found, frozenset[int]]) -> bool:
    """Whether two adapters are one file that no server applies twice at once."""
    return (
        bool(kept[1]) and bool(new[1]) and not kept[1] & new[1] and _file(kept[0]) == _file(new[0])
    )


def _file(found: Found) -> AdapterReference:
    return replace(found.reference, strength=Strength(), also=(), optional=False)


def _joined(
    kept: Found, within: frozenset[int], new: Found, where: frozenset[int]
) -> tuple[Found, frozenset[int]]:
    strengths = (*kept.reference.strengths, *new.reference.strengths)
    either = replace(
        used_at(kept.reference, strengths),
        optional=kept.reference.optional or new.reference.optional,
    )
    return replace(kept, reference=either, twins=(*kept.twins, new.spot)), within | where
