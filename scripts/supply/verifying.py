"""Holds files against what was attested of them. Needs the extra `signed` of the client alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from loragate._signed.envelope import open_envelope
from loragate._signed.keys import TrustedKeys
from scripts.supply.statement import Attested, read_statement

SUFFIX = ".intoto.json"

_LARGEST_BYTES = 1 << 20
_REMEDY = "Install nothing of it; get the file and its provenance from those who published it."


class RefusedError(ValueError):
    """A file is not what was attested; the text says why, and what to do."""


@dataclass(frozen=True)
class Expected:
    """What provenance is held to; an empty field is not looked at."""

    builder: str = ""
    source: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Verified:
    """What was attested of a file, and the id of the trusted key that has signed it."""

    said: Attested
    key_id: str


def verify(file: Path, provenance: Path, keys: TrustedKeys, expected: Expected) -> Verified:
    """Holds a file against its provenance. Asks nobody.

    Raises:
        RefusedError: it is another file, of another origin, or nobody who is trusted has signed it.
        SignatureRefused: likewise.
        OSError: one of the two cannot be read.
    """
    with provenance.open("rb") as opened:
        envelope = opened.read(_LARGEST_BYTES + 1)
    if not envelope:
        raise RefusedError(f"{provenance} is empty. {_REMEDY}")
    signed = open_envelope(envelope, keys, what="provenance", remedy=_REMEDY)
    try:
        said = read_statement(signed.payload)
    except ValueError as error:
        raise RefusedError(f"{provenance} cannot be understood: {error} {_REMEDY}") from None
    if said.name != file.name:
        raise RefusedError(f"{provenance} is about {said.name}, not {file.name}. {_REMEDY}")
    if (found := sha256_of(file)) != said.sha256:
        raise RefusedError(
            f"{file} has the sha256 {found}, and {said.sha256} was attested. {_REMEDY}"
        )
    for name, wanted in vars(expected).items():
        if wanted and getattr(said.origin, name) != wanted:
            raise RefusedError(
                f"{file} is of the {name} {getattr(said.origin, name)}, not {wanted}. {_REMEDY}"
            )
    return Verified(said, signed.key_id)


def sha256_of(file: Path) -> str:
    """Lower-case hexadecimal sha256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
