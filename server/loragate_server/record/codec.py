"""Writes verdicts and reviews as plain JSON values and builds the very same ones again."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import datetime
from enum import Enum
from numbers import Real
from typing import Any

from pydantic import TypeAdapter

from loragate_server.audit.evidence import Evidence
from loragate_server.record.changes.change import RecordedChange
from loragate_server.record.reviews.review import RecordedReview
from loragate_server.record.verdict import Verdict

PAYLOAD_VERSION = 1


def encode(recorded: Verdict | RecordedReview | RecordedChange) -> dict[str, Any]:
    """A mapping of JSON values with everything that a record holds."""
    return {"payload_version": PAYLOAD_VERSION, **_plain(recorded)}


def decode_verdict(payload: Mapping[str, Any]) -> Verdict:
    """The verdict that was encoded.

    Raises:
        ValueError: the payload was not written by `encode` of a known version.
    """
    verdict: Verdict = _adapter(Verdict).validate_python(_fields(payload))
    return verdict


def encode_evidence(evidence: Evidence) -> dict[str, Any]:
    """A mapping of JSON values with all that is recorded of evidence, which sketches are not."""
    plain: dict[str, Any] = _plain(evidence)
    return plain


def decode_evidence(payload: Mapping[str, Any]) -> Evidence:
    """The evidence that was encoded.

    Raises:
        ValueError: the payload was not written by `encode_evidence`.
    """
    evidence: Evidence = _adapter(Evidence).validate_python(payload)
    return evidence


def parse_verdict(text: str) -> Verdict:
    """The verdict whose encoding was written as JSON.

    Raises:
        ValueError: the text was not written by `encode` of a known version.
    """
    return decode_verdict(_object(text))


def parse_review(text: str) -> RecordedReview:
    """As `parse_verdict`, for a review."""
    review: RecordedReview = _adapter(RecordedReview).validate_python(_fields(_object(text)))
    return review


def parse_change(text: str) -> RecordedChange:
    """As `parse_verdict`, for a step of a change of the library."""
    change: RecordedChange = _adapter(RecordedChange).validate_python(_fields(_object(text)))
    return change


def to_json(value: object) -> str:
    """JSON on one line, pure ASCII, keys sorted: equal values give equal bytes.

    ASCII also carries what UTF-8 databases refuse, such as lone surrogates and NUL.
    """
    return json.dumps(
        value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def _object(text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except RecursionError as error:
        raise ValueError("the payload is nested too deeply") from error
    if not isinstance(payload, dict):
        raise ValueError("the payload is not a JSON object")
    return payload


def _fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(payload)
    version = values.pop("payload_version", None)
    if version != PAYLOAD_VERSION:
        raise ValueError(f"the payload has version {version!r}, not {PAYLOAD_VERSION}")
    return values


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_recorded(field: Field[Any], value: object) -> bool:
    """Fields that came later and are mostly empty leave older records as they were."""
    recorded = field.metadata.get("recorded", True)
    return bool(value) if recorded == "where set" else bool(recorded)


def _plain(value: object) -> Any:
    if is_dataclass(value):
        named = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(item) for f, item in named if _is_recorded(f, item)}
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Real):  # Floats of numpy too.
        number = float(value)
        # JSON has no word for these; the decoder reads the strings back as numbers.
        return number if math.isfinite(number) else str(number)
    raise TypeError(f"a verdict cannot hold a {type(value).__name__}")
