"""The base models that are served, each with the engine built for the current concept library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.audit.engine import AuditEngine
from loragate_server.concepts.library import concept_unknown
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models.base import BaseModel


@dataclass(frozen=True)
class ServedBase:
    """A base model and the engine that audits on it. Replaced as a whole, never changed.

    Attributes:
        library_digest: of the concept library whose probes the engine holds.
        concept_ids: forbidden concepts of that library.
    """

    name: str
    base: BaseModel
    engine: AuditEngine
    library_digest: str
    concept_ids: frozenset[str]

    def require_concepts(self, concept_ids: Sequence[str]) -> None:
        """Refuses ids that are not forbidden concepts.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN.
        """
        for concept_id in concept_ids:
            if concept_id not in self.concept_ids:
                raise concept_unknown(concept_id, "forbidden concept")


class BaseRegistry:
    """Served base models by name.

    Reads are safe from any thread: the mapping and its values are replaced, never changed.
    """

    def __init__(self, default: str, served: Sequence[ServedBase] = ()) -> None:
        self.default = default
        self._served = {one.name: one for one in served}

    @property
    def served(self) -> tuple[ServedBase, ...]:
        """Every served base model."""
        return tuple(self._served.values())

    @property
    def ready(self) -> bool:
        """Whether the default base model is served."""
        return self.default in self._served

    def get(self, name: str = "") -> ServedBase:
        """The base model of this name; the default one for the empty name.

        Raises:
            NoDecisionError: NOT_READY until the default is served; BASE_MODEL_UNKNOWN.
        """
        served = self._served
        if self.default not in served:
            raise NoDecisionError(
                ErrorReason.NOT_READY,
                "The server is still loading its base models.",
                remedy="Ask again when /readyz answers 200.",
                retry_after_s=2.0,
            )
        found = served.get(name or self.default)
        if found is None:
            known = ",".join(sorted(served))
            raise NoDecisionError(
                ErrorReason.BASE_MODEL_UNKNOWN,
                f"Base model {name[:80]!r} is not served here.",
                remedy=f"Use one of: {known}.",
                metadata={"base_model": name[:80], "known": known},
            )
        return found

    def swap(self, served: Sequence[ServedBase]) -> None:
        """Puts all of `served` in place of those of the same names, in one step."""
        self._served = {**self._served, **{one.name: one for one in served}}
