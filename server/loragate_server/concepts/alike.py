"""Pictures that a library holds already, whatever file they come from."""

from __future__ import annotations

import hashlib

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.pictures import as_png, read_picture


def owners(library: ConceptLibrary) -> dict[str, str]:
    """The sha256 of every reference picture, with the concept that it is of."""
    return {
        sha256: concept.concept_id
        for concept in library.concepts
        for sha256 in concept.picture_sha256
    }


def digests(data: bytes, label: str) -> tuple[str, str]:
    """The sha256 of a picture as a library writes it, and of its bytes as they are.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID, which calls the picture `label`.
    """
    written = as_png(read_picture(data, label))
    return hashlib.sha256(written).hexdigest(), hashlib.sha256(data).hexdigest()
