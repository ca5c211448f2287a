"""Writes bills of materials: what each wheel and the image's Python environment are made of.

    .venv/bin/python -m scripts.sbom                    # build/supply/*.cdx.json
    .venv/bin/python -m scripts.sbom --dist build/dist  # with the digests of the wheels there
    .venv/bin/python -m scripts.sbom --describe         # after a change of requirements-image.txt

CycloneDX 1.6 in JSON, held to its schema. Made of requirements-image.txt, requirements-image.json
and the files of the wheels alone, without a network; the same files give the same bytes. The only
moment in them is SOURCE_DATE_EPOCH, else that of the commit. docs/supply-chain.md says more.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from cyclonedx.model.component import Component

from scripts.lock_image import OWN, ROOT
from scripts.supply import assets, bom
from scripts.supply.closure import NotLockedError, closure, own_needs, own_version, roots
from scripts.supply.described import FILE, describe, read_described, written
from scripts.supply.lock import read_lock
from scripts.supply.source import SourceError, epoch_of

KINDS = (*OWN, "image")
"""What there is a bill of: the three wheels, and the image."""

SHIPS_MODEL = ("loragate-server", "image")


def bills(
    epoch: int, wheels: Mapping[str, str] | None = None, torch_sha256: str = ""
) -> dict[str, bytes]:
    """Every bill, by the name of its file.

    Args:
        epoch: the moment in them, in seconds since 1970.
        wheels: digests of the wheels that are described, by name of distribution.
        torch_sha256: of the wheel of torch in the image, where it is known.

    Raises:
        NotLockedError: something would be installed that is not locked.
        bom.InvalidBomError: the schema has it otherwise.
        OSError, ValueError: a file cannot be read.
    """
    given = wheels or {}
    return dict(bill(kind, epoch, given.get(kind, ""), torch_sha256) for kind in KINDS)


def bill(
    kind: str, epoch: int, wheel_sha256: str = "", torch_sha256: str = ""
) -> tuple[str, bytes]:
    """One of them, with the name of its file; as `bills`."""
    version = own_version()
    subject = bom.subject(kind, version, wheel_sha256)
    parts, needs = _packages(kind, torch_sha256)
    if kind in SHIPS_MODEL:
        parts += _embedded(version)
    return f"{subject.name}-{version}.cdx.json", bom.made(subject, parts, needs, epoch)


def _packages(kind: str, torch_sha256: str) -> tuple[list[Component], dict[str, tuple[str, ...]]]:
    """The packages of a bill but its subject, and who demands whom."""
    found = closure(roots(kind), read_lock(), read_described())
    needs = {one.name: one.needs for one in found}
    if kind == "image":
        needs["loragate-image"] = tuple(OWN)
        if torch_sha256:
            found = tuple(
                replace(one, hashes=(torch_sha256,)) if one.name == "torch" else one
                for one in found
            )
    return [bom.package(one) for one in found if one.name != kind], needs


def _embedded(version: str) -> list[Component]:
    return [
        bom.model(version, assets.model_digest(), assets.model_files()),
        *(bom.asset(one) for one in assets.data_files()),
        *(bom.pictures(one, version) for one in assets.picture_sets()),
    ]


def wheels_in(dist: Path) -> dict[str, str]:
    """The digests of the three wheels in a folder, by name of distribution.

    Raises:
        FileNotFoundError: one is not there.
    """
    found = {}
    for name in OWN:
        wheel = dist / f"{name.replace('-', '_')}-{own_version()}-py3-none-any.whl"
        found[name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return found


def _describe() -> str:
    wanted = [one for kind in KINDS for one in roots(kind)]
    described = describe(wanted, lambda name: own_needs(name) if name in OWN else None)
    FILE.write_text(written(described))
    return f"Wrote {len(described)} packages to {FILE.name}; look at the licences that changed."


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; leaves with 1 where a bill cannot be made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "supply", help="folder")
    parser.add_argument("--dist", type=Path, help="folder with the wheels that are described")
    parser.add_argument("--torch-sha256", default="", help="as TORCH_SHA256 of the image's build")
    parser.add_argument("--describe", action="store_true", help=f"write {FILE.name} anew")
    options = parser.parse_args(arguments)
    if options.torch_sha256 and not re.fullmatch("[0-9a-f]{64}", options.torch_sha256):
        parser.error("--torch-sha256 takes 64 digits 0-9 and a-f")
    try:
        if options.describe:
            print(_describe())
            return
        wheels = None if options.dist is None else wheels_in(options.dist)
        made = bills(epoch_of(ROOT), wheels, options.torch_sha256)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (options.out / name).write_bytes(data)
            print(f"{options.out / name}: {len(data)} bytes, valid")
    except PackageNotFoundError as error:
        sys.exit(f"sbom: {error.name} is not installed here. Run `make setup`.")
    except (NotLockedError, SourceError, bom.InvalidBomError, OSError, ValueError) as error:
        remedy = (
            "Run `python scripts/lock_image.py`, `make setup` and `-m scripts.sbom --describe`."
        )
        sys.exit(f"sbom: {error}. {remedy if isinstance(error, NotLockedError) else ''}".rstrip())


if __name__ == "__main__":
    main()
