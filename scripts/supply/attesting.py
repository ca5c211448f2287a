"""Attests what a commit builds."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from loragate_server.config.signing import SigningSection
from loragate_server.record.signing.envelope import enveloped
from loragate_server.record.signing.keys import open_keys
from scripts.lock_image import OWN
from scripts.sbom import bills
from scripts.supply.building import FOLDERS, build
from scripts.supply.source import Source, SourceError
from scripts.supply.statement import Attested, Origin, statement
from scripts.supply.verifying import SUFFIX, sha256_of

LOCK = "requirements-image.txt"
BILLS = "scripts/sbom.py"
INPUTS = ("constraints.txt", LOCK)
"""Files of the commit that pin what builds and what is installed."""

Files = dict[str, tuple[str, str]]
"""Name of a file to its sha256 and to what it is made of or by, as a path in the repository."""


def built(source: Source, folders: Iterable[str] = FOLDERS) -> Files:
    """What a commit builds of these folders, and its lock.

    Raises:
        SourceError, BuildError: it cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="loragate-provenance-") as name:
        tree, dist = Path(name) / "tree", Path(name) / "dist"
        source.export(tree)
        found = {LOCK: (sha256_of(tree / LOCK), LOCK)}
        for folder in folders:
            made = build(tree, dist / folder, source.epoch, (folder,))
            found |= {file.name: (sha256_of(file), folder) for file in made}
    return found


def require_built(files: Files, dist: Path) -> None:
    """Makes sure that the files that will be published are those that the commit builds.

    Args:
        files: as `built` gives them.
        dist: folder with the wheels and sdists, all of which have to be there.

    Raises:
        SourceError: one is missing or differs, or there is one more.
        OSError: the folder cannot be read.
    """
    lying = {file.name: file for file in dist.iterdir()}
    if more := sorted(set(lying) - set(files)):
        raise SourceError(f"{lying[more[0]]} is nothing that the commit builds. Take it away.")
    for name, (sha256, path) in files.items():
        if path == name:  # of the repository itself
            continue
        if name not in lying:
            raise SourceError(f"{name} is not there. Build it: `make packages`.")
        if (found := sha256_of(lying[name])) != sha256:
            raise SourceError(
                f"{lying[name]} has the sha256 {found}, and the commit builds {sha256}. Build it "
                "anew from a clean tree (`make packages`), with the versions of constraints.txt."
            )


def bills_of(source: Source, files: Files, place: Path) -> Files:
    """Writes the bills of materials of a commit to a folder; returns them as `built` does.

    Raises:
        ValueError, OSError, NotLockedError, InvalidBomError: as `scripts.sbom.bills`.
    """
    wheels = {name: _wheel_of(folder, files) for name, folder in OWN.items()}
    made = bills(source.epoch, wheels)
    for name, data in made.items():
        (place / name).write_bytes(data)
    return {name: (hashlib.sha256(data).hexdigest(), BILLS) for name, data in made.items()}


def _wheel_of(folder: str, files: Files) -> str:
    [sha256] = [sha for name, (sha, of) in files.items() if of == folder and name.endswith(".whl")]
    return sha256


def attested(source: Source, files: Files, builder: str, repository: str) -> dict[str, bytes]:
    """A statement about each file, by the name of the file that it goes to."""
    inputs = {name: sha256_of(source.root / name) for name in INPUTS}
    statements = {}
    for name, (sha256, path) in sorted(files.items()):
        origin = Origin(builder, repository, source.commit, path)
        said = statement(Attested(name, sha256, origin), source.epoch, _tools(), inputs)
        statements[f"{name}{SUFFIX}"] = json.dumps(said, sort_keys=True).encode("ascii")
    return statements


def signer(section: SigningSection) -> Callable[[bytes], bytes]:
    """What makes an envelope of a statement, signed by every key of the section.

    Raises:
        KeyUnusableError: a key cannot be used.
    """
    keys = open_keys(section, datetime.now(UTC))
    return lambda payload: enveloped(payload, keys)


def _tools() -> dict[str, str]:
    """What the bytes of wheels and sdists depend on beside the files in them."""
    return {
        "build": version("build"),
        "python": platform.python_version(),
        "setuptools": version("setuptools"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }
