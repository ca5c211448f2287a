"""The form for a new concept, or for a change of one: as it was sent, and what it asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from multidict import MultiMapping

from loragate_server.errors import NoDecisionError
from loragate_server.record.changes.change import ChangeKind, Proposal

if TYPE_CHECKING:
    from loragate_server.concepts.concept import Concept

HANDS = 3
"""Groups of pictures that the form takes, each by another hand."""


@dataclass(frozen=True)
class ConceptForm:
    """What somebody has typed, so that a refused form comes back as it was.

    Attributes:
        names: by language.
        hands: what each group of pictures is called.
    """

    kind: str = "add"
    concept_id: str = ""
    name: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    category: str = ""
    severity: str = ""
    prompts: str = ""
    hands: tuple[str, ...] = ("",) * HANDS
    reason: str = ""
    before: str = ""


def form_of(concept: Concept) -> ConceptForm:
    """The form for a change of a concept, as that is now."""
    return ConceptForm(
        kind=ChangeKind.CHANGE.value,
        concept_id=concept.concept_id,
        name=concept.name,
        names=dict(concept.names),
        category=concept.category,
        severity=concept.severity,
        prompts="\n".join(concept.prompts),
        before=concept.digest,
    )


def read_concept_form(texts: MultiMapping[str], languages: Sequence[str]) -> ConceptForm:
    """The fields as they were typed, without spaces around them."""

    def text(name: str) -> str:
        return texts.get(name, "").replace("\r\n", "\n").strip()

    names = {one: text(f"name-{one}") for one in languages if text(f"name-{one}")}
    return ConceptForm(
        kind=text("kind"),
        concept_id=text("concept_id"),
        name=text("name"),
        names=names,
        category=text("category"),
        severity=text("severity"),
        prompts=text("prompts"),
        hands=tuple(text(f"hand-{number}") for number in range(HANDS)),
        reason=text("reason"),
        before=text("before"),
    )


def with_other_names(form: ConceptForm, old: Concept, languages: Sequence[str]) -> ConceptForm:
    """The form with the names of a concept in languages for which it has no fields."""
    others = {one: name for one, name in old.names if one not in languages}
    return replace(form, names={**others, **form.names})


@dataclass(frozen=True)
class Wanted:
    """A proposal with its pictures, as a library would hold them."""

    proposal: Proposal
    pictures: tuple[bytes, ...]


def wanted(
    form: ConceptForm,
    files: MultiMapping[bytes],
    old: Concept | None,
    severe: frozenset[str],
) -> Wanted:
    """What the form asks for; pictures are decoded and written anew. Blocks.

    Args:
        form: as it was typed.
        files: by the name of the field of their hand.
        old: the concept that is changed or retired; None for a new one.
        severe: severities at which two people have to agree, before or after the change.

    Raises:
        NoDecisionError: REQUEST_INVALID or CONCEPT_PICTURES_INVALID.
    """
    from loragate_server.concepts.entries import require_valid
    from loragate_server.concepts.pictures import taken_in

    kind = ChangeKind(form.kind)
    if kind is ChangeKind.RETIRE and old is not None:
        form = form_of(old)
    pictures: list[bytes] = []
    hands: list[str] = []
    if kind is not ChangeKind.RETIRE:
        for number in range(HANDS):
            for data in files.getall(f"pictures-{number}", []):
                pictures.append(taken_in(data, str(len(pictures) + 1)))
                hands.append(form.hands[number] or f"hand-{number + 1}")
    several = any(form.hands) or len(set(hands)) > 1
    proposal = Proposal(
        kind=kind,
        concept_id=form.concept_id,
        name=form.name,
        names=tuple(sorted(form.names.items())),
        category=form.category,
        severity=form.severity,
        prompts=tuple(one.strip() for one in form.prompts.split("\n") if one.strip()),
        picture_sha256=tuple(hashlib.sha256(one).hexdigest() for one in pictures),
        picture_hands=tuple(hands) if several else (),
        before="" if old is None else old.digest,
        needs_second=bool(severe & {form.severity, "" if old is None else old.severity}),
    )
    from loragate_server.console.editing import concept_of

    keeps = kind is not ChangeKind.ADD and not pictures
    require_valid(concept_of(proposal), 1 if keeps else len(pictures))
    return Wanted(proposal, tuple(pictures))


def fault(error: NoDecisionError) -> str:
    """What a form is told; the sentences are those of the library."""
    return f"{error.message} {error.remedy}"
