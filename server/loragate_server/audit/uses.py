"""`Use`: one way in which an image server may use the adapters of a request.

A set is judged member by member and as a sum, at every strength at which it may be used, as every
loader reads it. What stands alone cannot hide in company, and what is harmless alone may not be
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, product

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.evidence import UsedAdapter, UseEvidence
from loragate_server.intake.loader_rules.names import EVERY_SCALE, UNSCALED

MOST_USES = 64
"""More cannot be judged in the time of one audit."""

_ANY = ("",)
"""Stands for the loaders of a reading that names none."""


@dataclass(frozen=True)
class Member:
    """One adapter of a request.

    Attributes:
        readings: what its bytes mean, one entry per distinct meaning; at least one.
        strengths: every one at which it may be used; at least one.
        optional: whether the image server may leave it out.
        refused: loaders that would not load the file, and why.
        doubts: what reading the file left open, as (code, sentence).
    """

    readings: tuple[Adapter, ...]
    strengths: tuple[Strength, ...] = (Strength(),)
    optional: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, adapter: Adapter, *strengths: Strength) -> Member:
        """A member that all loaders read alike, at full strength unless told otherwise."""
        return cls((adapter,), strengths or (Strength(),))

    @property
    def may_be_absent(self) -> bool:
        """Whether others may act without it: a new word acts in prompts that hold it alone."""
        return self.optional or any(one.words for one in self.readings)

    def read_by(self, loader: str) -> tuple[Adapter, ...]:
        """What it may mean to a loader; nothing where that one refuses it."""
        found = tuple(one for one in self.readings if loader in (one.loaders or (loader,)))
        # what stands for any loader reads a file without such a meaning as the others do
        return self.readings if not found and loader in (UNSCALED, EVERY_SCALE) else found


@dataclass(frozen=True)
class Use:
    """Adapters that are active together.

    Attributes:
        members: index of the member, its reading and its strength.
        loaders: the loaders under which this comes about; empty where that does not matter.
    """

    members: tuple[tuple[int, Adapter, Strength], ...]
    loaders: tuple[str, ...]

    @property
    def adaptation(self) -> tuple[tuple[Adapter, Strength], ...]:
        """What the stages of an audit are given."""
        return tuple((adapter, strength) for _, adapter, strength in self.members)

    @property
    def evidence(self) -> UseEvidence:
        """How the record names it."""
        return UseEvidence(
            tuple(
                UsedAdapter(index, strength.denoiser, strength.text_encoder)
                for index, _, strength in self.members
            ),
            self.loaders,
        )


class TooManyUsesError(Exception):
    """The request can be read in more ways than can be judged."""


def uses_of(members: Sequence[Member]) -> tuple[Use, ...]:
    """Every use of the members: all together first, then subsets, then each one alone.

    Args:
        members: at least one. Those that may not be absent are in every use, except where each is
            judged alone.

    Raises:
        TooManyUsesError: there are more than `MOST_USES`.
    """
    found: dict[tuple[tuple[int, int, Strength], ...], Use] = {}
    for loader in _loaders(members):
        for chosen in _chosen(members, loader):
            key = tuple((index, id(adapter), strength) for index, adapter, strength in chosen)
            known = found.get(key)
            named = dict.fromkeys((*(known.loaders if known else ()), loader))
            found[key] = Use(chosen, tuple(name for name in named if name))
            if len(found) > MOST_USES:
                raise TooManyUsesError
    return tuple(found.values())


def _loaders(members: Sequence[Member]) -> tuple[str, ...]:
    """Every loader that any member names, in order."""
    every = (name for member in members for one in member.readings for name in one.loaders or _ANY)
    named = tuple(dict.fromkeys(every))
    return tuple(name for name in named if name) or _ANY


def _chosen(
    members: Sequence[Member], loader: str
) -> Iterator[tuple[tuple[int, Adapter, Strength], ...]]:
    """What one loader may make active together. What it refuses to load is not there."""
    there = {
        index: readings
        for index, member in enumerate(members)
        if (readings := member.read_by(loader))
    }
    certain = [index for index in there if not members[index].may_be_absent]
    maybe = [index for index in there if members[index].may_be_absent]
    subsets = chain.from_iterable(combinations(maybe, n) for n in range(len(maybe), -1, -1))
    together = (tuple(sorted((*certain, *subset))) for subset in subsets)
    alone = ((index,) for index in there)
    for indices in chain(together, alone):
        if not indices:
            continue
        ways = (product([i], there[i], members[i].strengths) for i in indices)
        yield from product(*ways)
