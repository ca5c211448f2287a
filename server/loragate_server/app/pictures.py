"""Pictures of a new concept, from files, folders and the addresses that intake may fetch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loragate_server.adapter.reference import AdapterReference
from loragate_server.concepts.gathering import gather
from loragate_server.concepts.pictures import MAX_BYTES
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.sources import open_source, unreadable_source

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Collected:
    """A picture that was named on the command line.

    Attributes:
        name: its file or address.
        hand: empty for those that nobody sorted.
    """

    name: str
    data: bytes = field(repr=False)
    hand: str = ""


def collect(sources: Sequence[str], settings: IntakeSection) -> list[Collected]:
    """Every picture with its hand.

    Args:
        sources: files, or folders, or addresses such as https://host/picture.png. Addresses stand
            beside files alone, as nobody can tell their hand.
        settings: which addresses may be fetched, and for how long.

    Raises:
        NoDecisionError: as `gather`, and as `open_source` for an address.
        OSError: a file cannot be read.
    """
    addresses = [one for one in sources if "://" in one]
    files = [Path(one) for one in sources if "://" not in one]
    if addresses and any(path.is_dir() for path in files):
        raise NoDecisionError(
            ErrorReason.CONCEPT_PICTURES_INVALID,
            f"{addresses[0]} is an address beside folders, and nobody can tell its hand.",
            remedy="Fetch it into one of the folders.",
        )
    gathered = gather(files) if files else []
    found = [Collected(str(path), path.read_bytes(), hand) for path, hand in gathered]
    return found + [Collected(one, fetch_picture(one, settings)) for one in addresses]


def fetch_picture(address: str, settings: IntakeSection) -> bytes:
    """Reads a picture from an address, under the rules that hold for adapters.

    Raises:
        NoDecisionError: as `open_source`; CONCEPT_PICTURES_INVALID where it is too large.
    """
    until_s = time.monotonic() + settings.fetch_total_s
    data = bytearray()
    with open_source(AdapterReference(uri=address), settings) as source:
        while chunk := source.file.read(_CHUNK_BYTES):
            data += chunk
            if len(data) > MAX_BYTES:
                raise NoDecisionError(
                    ErrorReason.CONCEPT_PICTURES_INVALID,
                    f"The picture at the address has more than {MAX_BYTES} bytes.",
                    remedy="Fetch it, make it smaller, and give the file.",
                )
            if time.monotonic() > until_s:
                raise unreadable_source("remote", TimeoutError())
    return bytes(data)
