"""Which packages belong to a wheel or to the image: what they demand, and what that demands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from scripts.lock_image import EXTRAS, OWN, ROOT, WITH_TORCH
from scripts.supply.described import Described, Needs, needs_of
from scripts.supply.lock import Locked

Wanted = tuple[str, str]
"""A package and one of its extras; the empty one for the package itself."""


class NotLockedError(Exception):
    """Something would be installed that the lock does not have; the text says by whose demand."""


@dataclass(frozen=True)
class Package:
    """One package of a closure.

    Attributes:
        name: as package indexes compare names.
        version: that is installed.
        licence: an SPDX expression, or a name where there is none.
        hashes: sha256 of each file that may be installed; empty for loragate's own, and for torch,
            whose build the maker of an image chooses.
        needs: names of what it demands, sorted.
        locked: whether the lock names it.
    """

    name: str
    version: str
    licence: str
    hashes: tuple[str, ...]
    needs: tuple[str, ...]
    locked: bool


@cache
def own_project(name: str) -> dict[str, Any]:
    """The table `project` of one of the three distributions."""
    project: dict[str, Any] = tomllib.loads((ROOT / OWN[name] / "pyproject.toml").read_text())
    return dict(project["project"])


def own_needs(name: str) -> Needs:
    """What one of the three distributions demands, by extra."""
    project = own_project(name)
    lists: dict[str, list[str]] = {"": project["dependencies"]}
    lists |= project.get("optional-dependencies", {})
    return {extra: needs_of(texts).get("", ()) for extra, texts in lists.items()}


def roots(kind: str) -> tuple[Wanted, ...]:
    """What is asked for: one of the three distributions, or "image" for all with its extras."""
    if kind != "image":
        return ((kind, ""),)
    server = [("loragate-server", extra) for extra in ("", *EXTRAS.split(","))]
    return (("loragate", ""), ("loragate-kernels", ""), *server)


def closure(
    wanted: Iterable[Wanted], locked: Mapping[str, Locked], described: Mapping[str, Described]
) -> tuple[Package, ...]:
    """All that is installed for what is wanted, sorted by name.

    Raises:
        NotLockedError: the lock lacks one, or what is known of it is of another version.
    """
    reached: dict[str, set[str]] = {}
    edges: dict[str, set[str]] = {}
    waiting = [(name, extra, "") for name, extra in wanted]
    while waiting:
        name, extra, by = waiting.pop()
        if extra in reached.setdefault(name, set()):
            continue
        reached[name].add(extra)
        for needed, its_extra in _needs(name, described, by).get(extra, ()):
            edges.setdefault(name, set()).add(needed)
            waiting.append((needed, its_extra, name))
    return tuple(
        _package(name, tuple(sorted(edges.get(name, set()) - {name})), locked, described)
        for name in sorted(reached)
    )


def _needs(name: str, described: Mapping[str, Described], by: str) -> Needs:
    if name in OWN:
        return own_needs(name)
    if name not in described:
        raise NotLockedError(f"{by} demands {name}, of which nothing is known")
    return described[name].needs


def _package(
    name: str,
    needs: tuple[str, ...],
    locked: Mapping[str, Locked],
    described: Mapping[str, Described],
) -> Package:
    if name in OWN:
        project = own_project(name)
        return Package(name, own_version(), str(project["license"]), (), needs, locked=False)
    one = described[name]
    if name in locked:
        if locked[name].version != one.version:
            raise NotLockedError(
                f"{name} is locked at {locked[name].version}, and what is known is of {one.version}"
            )
        return Package(name, one.version, one.licence, locked[name].hashes, needs, locked=True)
    if not WITH_TORCH.match(f"{name}=="):
        raise NotLockedError(f"{name} is demanded, and the lock does not have it")
    return Package(name, one.version, one.licence, (), needs, locked=False)


def own_version() -> str:
    """The version that the three distributions carry."""
    return str(own_project("loragate-server")["version"])
