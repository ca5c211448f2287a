"""Names and groups out of what a provider or a proxy says, checked before they go anywhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from loragate_server.access.refusals import AccessRefused, Refusal

MAX_NAME_CHARS: Final = 200


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of this name, or at this dotted path such as `realm_access.roles`; else None."""
    if path in claims:  # names may hold dots: https://example.com/groups
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def person_name(claims: Mapping[str, Any], path: str) -> str:
    """The person's name.

    Raises:
        AccessRefused: there is none that could stand in the decision log.
    """
    value = claim(claims, path)
    if value is None:
        raise AccessRefused(Refusal.NAME_UNUSABLE, f"no claim {path}")
    if not isinstance(value, str):
        raise AccessRefused(Refusal.NAME_UNUSABLE, f"claim {path} is no text")
    # Anybody could give a stranger's address to a provider that does not ask for proof.
    if path == "email" and claims.get("email_verified", True) not in (True, "true"):
        raise AccessRefused(Refusal.NAME_UNUSABLE, "the e-mail address is not verified")
    return checked_name(value, path)


def person_groups(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The person's groups; empty if the claim is missing.

    Raises:
        AccessRefused: the claim is neither a list of texts nor a text with spaces between names.
    """
    value = claim(claims, path)
    if value is None:
        return frozenset()
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AccessRefused(Refusal.GROUPS_UNUSABLE, f"claim {path} is no list of names")
    return frozenset(names)


def checked_name(name: str, source: str) -> str:
    """The name, if it can stand in logs and pages, in composed characters.

    Raises:
        AccessRefused: it is empty, too long, or holds characters that nobody sees.
    """
    name = unicodedata.normalize("NFC", name)
    if not name or name != name.strip():
        raise AccessRefused(Refusal.NAME_UNUSABLE, f"{source} is empty or has spaces around it")
    if len(name) > MAX_NAME_CHARS:
        raise AccessRefused(Refusal.NAME_UNUSABLE, f"{source} has {len(name)} characters")
    if any(_invisible(character) for character in name):
        raise AccessRefused(Refusal.NAME_UNUSABLE, f"{source} holds control characters")
    return name


def _invisible(character: str) -> bool:
    """Control, format (such as right-to-left overrides), half and unassigned characters."""
    category = unicodedata.category(character)
    return category.startswith("C") or category in ("Zl", "Zp")
