"""How Go's encoding/json finds the members of an object: by their names in any letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loragate_server.intercept.refusals import ambiguous_body

_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})
"""The two letters of other alphabets that Go takes for one of ASCII."""


@dataclass(frozen=True)
class Member:
    """A member of an object.

    Attributes:
        name: as written.
    """

    name: str
    value: Any


def members(body: Mapping[str, Any]) -> dict[str, Member]:
    """The members of an object by the names that Go finds them under, in small letters.

    Of several that differ in their letters alone Go takes the last, and joins objects. Clients
    send no such, and other readers take another.

    Raises:
        RefusedRequestError: BODY_AMBIGUOUS for such members.
    """
    found: dict[str, Member] = {}
    for name, value in body.items():
        folded = name.translate(_FOLDED).lower()
        if folded in found:
            raise ambiguous_body(
                "Two names in the body differ in their letters' case alone.",
                "Send every name once.",
            )
        found[folded] = Member(name, value)
    return found
