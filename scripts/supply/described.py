"""requirements-image.json: licence and demands of each package of the lock, as it says itself.

A lock has neither, and an installed environment is of the machine on which it lies. So both are
written down once, when the lock changes, and a bill of materials is made of files of this
repository alone. What is written down is in every review, and a new licence does not come unseen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.lock_image import ROOT
from scripts.supply.lock import holds

FILE = ROOT / "requirements-image.json"
Needs = Mapping[str, tuple[tuple[str, str], ...]]
"""By extra, the empty one for the package itself: names and extras of what is demanded."""

_EXTRA = re.compile(r"""extra == ["']([^"']+)["']""")
_CLASSIFIER = "License :: "
_MEANT = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages of the lock mean that have a name or a classifier for a licence alone. The texts
of those that say BSD have three clauses; whoever adds one that has two has to say so here."""


@dataclass(frozen=True)
class Described:
    """What a package says of itself.

    Attributes:
        version: without the part that names a build, such as +cpu.
        licence: an SPDX expression, or a name where it says none.
        needs: demands on the platform that is described.
    """

    version: str
    licence: str
    needs: Needs


def read_described(file: Path = FILE) -> dict[str, Described]:
    """The file, by name of package.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    said = json.loads(file.read_text())
    return {
        name: Described(
            one["version"],
            one["licence"],
            {
                extra: tuple(_parted(text) for text in texts)
                for extra, texts in one["needs"].items()
            },
        )
        for name, one in said.items()
    }


def written(described: Mapping[str, Described]) -> str:
    """The text of the file, a package on a line."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(_shown(one))}" for name, one in sorted(described.items())
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _shown(one: Described) -> dict[str, object]:
    needs = {extra: [_joined(each) for each in one.needs[extra]] for extra in sorted(one.needs)}
    return {"version": one.version, "licence": one.licence, "needs": needs}


def describe(
    wanted: Iterable[tuple[str, str]], needs: Callable[[str], Needs | None]
) -> dict[str, Described]:
    """Describes all that is demanded, out of what is installed here.

    Args:
        wanted: names and extras to begin with.
        needs: demands of what is not looked up here; None for what is.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not installed.
    """
    found: dict[str, Described] = {}
    asked: set[tuple[str, str]] = set()
    waiting = list(wanted)
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        own = needs(name)
        if own is None and name not in found:
            found[name] = _installed(name)
        waiting += (own if own is not None else found[name].needs).get(extra, ())
    # Extras that nobody asks for are left out: they name hundreds of packages that are not there.
    return {
        name: Described(
            one.version,
            one.licence,
            {extra: of for extra, of in one.needs.items() if (name, extra) in asked and of},
        )
        for name, one in found.items()
    }


def needs_of(requirements: Iterable[str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Demands as metadata write them, by extra, for the platform that is described."""
    found: dict[str, set[tuple[str, str]]] = {}
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        for extra in _extras_in(requirement):
            if holds(requirement.marker, extra):
                each = ("", *requirement.extras)
                found.setdefault(extra, set()).update((name, inner) for inner in each)
                if not extra:
                    break
    return {extra: tuple(sorted(of)) for extra, of in found.items()}


def licence_of(said: Mapping[str, str], classifiers: Iterable[str]) -> str:
    """The licence that metadata declare: an SPDX expression, else a name, else nothing."""
    named = said.get("License", "")
    for text in (said.get("License-Expression", ""), named, _MEANT.get(named, "")):
        try:
            if text:
                return str(canonicalize_license_expression(text))
        except InvalidLicenseExpression:
            continue
    names = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith(_CLASSIFIER)]
    # Of several, all may hold for a part: the stricter reading.
    known = sorted({_MEANT[name] for name in names if name in _MEANT})
    return " AND ".join(known) or next(iter(names), "")


def _installed(name: str) -> Described:
    said = metadata.metadata(name)
    fields = {key: said[key] for key in ("License-Expression", "License") if said[key]}
    return Described(
        Version(said["Version"]).public,
        licence_of(fields, said.get_all("Classifier") or ()),
        needs_of(metadata.requires(name) or ()),
    )


def _extras_in(requirement: Requirement) -> Iterator[str]:
    """The extras for which a demand may hold: none at first, then those that its marker names."""
    yield ""
    yield from sorted(set(_EXTRA.findall(str(requirement.marker or ""))))


def _joined(one: tuple[str, str]) -> str:
    return f"{one[0]}[{one[1]}]" if one[1] else one[0]


def _parted(text: str) -> tuple[str, str]:
    name, _, extra = text.rstrip("]").partition("[")
    return name, extra
