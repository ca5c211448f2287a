"""What the gate needs of the record: uses of the same files that are blocked already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from loragate_server.gate.key import AdapterKey
from loragate_server.policy.known import KnownUse
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record.verdict import Verdict

Wanted = Sequence[tuple[ReviewedAdapter, ...]]
"""What a request asks about: per adapter, each way in which it may be used."""


class Known(Protocol):
    """What the gate needs of `loragate_server.record.known_book.KnownBook`."""

    def about(self, wanted: Wanted, base_digest: str) -> tuple[KnownUse, ...]:
        """Blocked uses of some, but not all, of the files; must not block."""
        ...

    def learn(self, verdict: Verdict) -> None:
        """Takes in what was just recorded; must not block."""
        ...


class NothingKnown:
    """`Known` of a gate without a memory."""

    def about(self, wanted: Wanted, base_digest: str) -> tuple[KnownUse, ...]:
        """None."""
        return ()

    def learn(self, verdict: Verdict) -> None:
        """Forgotten."""


def wanted_of(adapters: Iterable[AdapterKey]) -> Wanted:
    """The ways in which the adapters of a question may be used."""
    return tuple(
        tuple(
            ReviewedAdapter(one.sha256, one.config_sha256, each.denoiser, each.text_encoder)
            for each in one.strengths
        )
        for one in adapters
    )
