"""Who is looking at a page, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import web

from loragate_server.config.console import RolesSection


class Role(StrEnum):
    """What a person may do, each role all that the one before it may."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    ADMIN = "admin"


_RANK: Final = {role: rank for rank, role in enumerate(Role)}


class Permission(StrEnum):
    """What a person may do beside what the role says; no role has it by itself."""

    EDIT_CONCEPTS = "concepts.edit"


@dataclass(frozen=True)
class User:
    """A person who has signed in.

    Attributes:
        name: as the provider or the proxy gives it; it stands in the decision log.
    """

    name: str
    role: Role
    permissions: frozenset[Permission] = frozenset()

    def may(self, role: Role) -> bool:
        """Whether the person has at least this role."""
        return _RANK[self.role] >= _RANK[role]


def permissions_of(groups: Iterable[str], roles: RolesSection) -> frozenset[Permission]:
    """What the groups allow beside a role."""
    editors = frozenset(groups) & roles.concept_editor
    return frozenset({Permission.EDIT_CONCEPTS}) if editors else frozenset()


USER: Final = web.RequestKey("user", User)
"""Where the access middleware leaves the person; every page behind it may rely on it."""


def role_of(groups: Iterable[str], roles: RolesSection) -> Role | None:
    """The highest role that the groups give; None where they give none."""
    member = frozenset(groups)
    for role, named in (
        (Role.ADMIN, roles.admin),
        (Role.REVIEWER, roles.reviewer),
        (Role.VIEWER, roles.viewer),
    ):
        if member & named:
            return role
    return None
