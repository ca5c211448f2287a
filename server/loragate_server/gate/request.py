"""`GateRequest`: a question to the gate, free of wire types."""

from __future__ import annotations

from dataclasses import dataclass, field

from loragate_server.adapter.reference import AdapterReference
from loragate_server.record.verdict import Caller


@dataclass(frozen=True)
class GateRequest:
    """Adapters that will be active together on one base model, and who asks.

    Attributes:
        base_model: name of a served base model; empty for the default.
        concept_ids: restricts the audit; empty for the whole library.
        peer: host from which a caller without a name asks.
    """

    adapters: tuple[AdapterReference, ...]
    base_model: str = ""
    caller: Caller = field(default_factory=Caller)
    dry_run: bool = False
    concept_ids: tuple[str, ...] = ()
    peer: str = ""

    @property
    def inline_bytes(self) -> int:
        """How many bytes of adapters came with the question."""
        return sum(len(one.inline_bytes or b"") for one in self.adapters)

    @property
    def asker(self) -> str:
        """Whose share of the queue it takes: nobody can choose it, as the service's name."""
        return self.caller.identity or self.peer
