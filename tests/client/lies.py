"""Ways in which an ALLOW can be about something else than what was asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from loragate.v1 import audit_pb2

Lie = Callable[[audit_pb2.Verdict], object]

YEAR_S = 366 * 86400
LATEST_S = 253402300799  # the last second of the year 9999


def _at(field: str, seconds: int, nanos: int = 0) -> Lie:
    """Another time, relative to now where it is small."""

    def lie(verdict: audit_pb2.Verdict) -> None:
        absolute = seconds if abs(seconds) > 10 * YEAR_S else int(time.time()) + seconds
        getattr(verdict, field).CopyFrom(Timestamp(seconds=absolute, nanos=nanos))

    return lie


def _validity(decided: int, expires: int) -> Lie:
    def lie(verdict: audit_pb2.Verdict) -> None:
        _at("decided_at", decided)(verdict)
        _at("expires_at", expires)(verdict)

    return lie


def _set(**fields: Any) -> Lie:
    return lambda verdict: verdict.MergeFrom(audit_pb2.Verdict(**fields))


def _clear(field: str) -> Lie:
    return lambda verdict: verdict.ClearField(field)


def _adapter(**fields: Any) -> Lie:
    """Another first adapter."""

    def lie(verdict: audit_pb2.Verdict) -> None:
        for name, value in fields.items():
            setattr(verdict.adapters[0], name, value)

    return lie


def _mode(mode: int) -> Lie:
    def lie(verdict: audit_pb2.Verdict) -> None:
        verdict.mode = mode

    return lie


LIES: dict[str, Lie] = {
    "no decision id": _clear("decision_id"),
    "a BLOCK": lambda v: _set(verdict="VERDICT_KIND_BLOCK", would_be_verdict="VERDICT_KIND_BLOCK")(
        v
    ),
    "no verdict": _clear("verdict"),
    "a verdict of a newer version": lambda v: setattr(v, "verdict", 77),
    "enforces what its policy did not decide": _set(would_be_verdict="VERDICT_KIND_BLOCK"),
    "enforces, and its policy decided nothing": _clear("would_be_verdict"),
    "no mode": _clear("mode"),
    "a mode of a newer version": _mode(9),
    "no adapter": _clear("adapters"),
    "one adapter more": lambda v: v.adapters.add().CopyFrom(v.adapters[0]),
    "another adapter before": lambda v: v.adapters.insert(
        0, audit_pb2.AuditedAdapter(sha256="e" * 64, denoiser_strength=1, text_encoder_strength=1)
    ),
    "another adapter": _adapter(sha256="e" * 64),
    "a nameless adapter": _adapter(sha256=""),
    "a digest cut short": lambda v: _adapter(sha256=v.adapters[0].sha256[:40])(v),
    "a digest in capitals": lambda v: _adapter(sha256=v.adapters[0].sha256[:-1] + "G")(v),
    "another kind of file": _adapter(kind="ADAPTER_KIND_EMBEDDING"),
    "an unknown kind of file": _adapter(kind=7),
    "no strength": _adapter(denoiser_strength=0.0),
    "a weaker denoiser": lambda v: _adapter(
        denoiser_strength=v.adapters[0].denoiser_strength * 0.99
    )(v),
    "the other sign": lambda v: _adapter(denoiser_strength=-v.adapters[0].denoiser_strength)(v),
    "no strength that is a number": _adapter(denoiser_strength=float("nan")),
    "a boundless strength": _adapter(denoiser_strength=float("inf")),
    "stronger text encoders": lambda v: _adapter(
        text_encoder_strength=v.adapters[0].text_encoder_strength + 0.5
    )(v),
    "text encoders without a number": _adapter(text_encoder_strength=float("nan")),
    "another base model": lambda v: setattr(v, "base_model", "other"),
    "a base model in capitals": lambda v: setattr(v, "base_model", v.base_model.upper()),
    "no base model": _clear("base_model"),
    "a dry run": _set(dry_run=True),
    "a dry run that says it binds": _set(dry_run=True, binding=True),
    "not binding": lambda v: setattr(v, "binding", False),
    "some concepts only": _set(restricted_to_concept_ids=["another"]),
    "some concepts only, and says it binds": _set(
        restricted_to_concept_ids=["another"], binding=True
    ),
    "other loaders": lambda v: (v.ClearField("loaders"), v.loaders.append("another")),
    "run out in 2001": _validity(990_000_000 - 100, 990_000_000),
    "run out an hour ago": _validity(-7200, -3600),
    "run out a minute ago": _validity(-7200, -60),
    "decided in an hour": _validity(3600, 7200),
    "decided in 2001 and still good": _validity(990_000_000, 3600),
    "good for a thousand years": _at("expires_at", 32_000_000_000),
    "good to the end of time": _at("expires_at", LATEST_S),
    "runs out before it was decided": _validity(60, 50),
    "runs out as it was decided": _validity(0, 0),
    "never runs out": _clear("expires_at"),
    "was never decided": _clear("decided_at"),
    "runs out beyond all calendars": _at("expires_at", LATEST_S + 1),
    "was decided before all calendars": _at("decided_at", -LATEST_S),
    "a time beyond all numbers": _at("expires_at", 2**62),
    "a time with too many nanoseconds": _at("expires_at", 3600, 2_000_000_000),
    "a time with too few nanoseconds": _at("decided_at", -10, -5),
}
"""What makes of an honest verdict one that no load may rest on."""


@st.composite
def lies(draw: st.DrawFn) -> Lie:
    """One lie or several, of the list or with numbers of hypothesis's own."""
    chosen = draw(st.lists(st.sampled_from(sorted(LIES)), max_size=3, unique=True))
    seconds = st.integers(-(2**63), -31) | st.integers(YEAR_S + 60, 2**63 - 1)
    strength = st.floats().filter(lambda x: not abs(x - 0.7) <= 1e-6)
    numbers = {
        "expires_at": seconds.map(lambda s: _at("expires_at", s)),
        "strength": strength.map(lambda x: _adapter(denoiser_strength=x)),
        "text encoder": strength.map(lambda x: _adapter(text_encoder_strength=x)),
        "sha256": st.text(max_size=70).map(lambda text: _adapter(sha256=text)),
        "base": st.text(max_size=9)
        .filter(lambda text: text != "tiny")
        .map(lambda text: lambda v: setattr(v, "base_model", text)),
    }
    own = draw(st.sampled_from(sorted(numbers))) if not chosen or draw(st.booleans()) else None
    told = [LIES[name] for name in chosen] + ([draw(numbers[own])] if own else [])

    def lie(verdict: audit_pb2.Verdict) -> None:
        for one in told:
            one(verdict)

    return lie
