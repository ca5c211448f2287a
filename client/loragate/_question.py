"""Holds an answer against its question: a verdict counts for what it names, and for nothing else.

Every result of `audit` and `watch`, of both clients and of all integrations, is made by
`result_for`. What stands between client and service, or a service that errs, can answer with a
verdict over other bytes, strengths or models, or with one from another time; none of these gets
past here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from loragate import _wire
from loragate._signed.answer import require_signed
from loragate._signed.keys import TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate.errors import Internal
from loragate.reference import (
    LOADERS,
    AdapterReference,
    AuditOptions,
    checked_digest,
    is_sha256,
)
from loragate.results import AuditedAdapter, AuditResult, Mode
from loragate.v1 import audit_pb2

log = logging.getLogger("loragate")

LONGEST_VALIDITY = timedelta(days=366)
"""A policy can give no verdict a longer life."""

# A server that keeps strengths in single precision still answers the question; nothing that a
# strength differs by within these can be seen in a picture.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_MODES = {audit_pb2.MODE_ENFORCE: Mode.ENFORCE, audit_pb2.MODE_PILOT: Mode.PILOT}


def require_sha256(digest: str) -> None:
    """Refuses the digest of an adapter that none can have; the service would just find nothing.

    Raises:
        ValueError: it is neither empty nor a sha256.
    """
    if digest and not is_sha256(digest):
        raise ValueError(
            f"adapter_sha256 is a hexadecimal sha256 of 64 characters, not {digest!r}. The "
            "adapters of a result have it in full."
        )


@dataclass(frozen=True)
class Question:
    """What was asked, as far as the answer has to agree with it.

    Attributes:
        adapters: in the order in which they were asked about.
        clock_skew_s: how far the clocks of client and service may be apart.
        keys: the answer has to be signed by one of these; None asks for no signature.

    The others are those of `AuditOptions`.
    """

    adapters: tuple[AdapterReference, ...]
    base_model: str = ""
    expected_base_digest: str = ""
    loader: str = ""
    dry_run: bool = False
    concept_ids: frozenset[str] = frozenset()
    clock_skew_s: float = 0.0
    keys: TrustedKeys | None = None

    @classmethod
    def of(
        cls,
        adapters: Sequence[AdapterReference],
        options: AuditOptions,
        *,
        clock_skew_s: float,
        keys: TrustedKeys | None = None,
    ) -> Question:
        """The question that these arguments of `audit` ask.

        Raises:
            ValueError: the expected digest of the base model is none.
        """
        digest = checked_digest(options.get("expected_base_digest"))
        return cls(
            adapters=tuple(adapters),
            base_model=options.get("base_model", ""),
            expected_base_digest=digest or "",
            loader=options.get("loader", ""),
            dry_run=options.get("dry_run", False),
            concept_ids=frozenset(options.get("concept_ids", ())),
            clock_skew_s=clock_skew_s,
            keys=keys,
        )

    @property
    def sources_elsewhere(self) -> bool:
        """Whether the service has to fetch bytes: then their place decides how long it takes."""
        return any(adapter.data is None for adapter in self.adapters)


def result_for(
    question: Question, message: audit_pb2.Verdict, *, now: datetime | None = None
) -> AuditResult:
    """Reads a verdict and makes sure that it answers the question.

    Args:
        question: what was asked.
        message: what came back.
        now: the time of its arrival; None for the present one.

    Raises:
        Internal: it does not, it has run out, contradicts itself, or is not signed as it has to be.
        ValueError: it cannot be read at all.
    """
    result, wrong = fitted(question, message, now=now)
    if wrong:
        raise Internal(
            "The answer does not fit the question. " + " ".join(wrong),
            operation="audit",
            remedy="Load nothing; find out what stands between this client and the service.",
            decision_id=result.decision_id,
        )
    _require_loader(question, result)
    bare = {one.sha256 for one in question.adapters if one.data is not None}
    return believed(question.keys, message, result, bare=bare, operation="audit")


def believed(
    keys: TrustedKeys | None,
    message: audit_pb2.Verdict,
    result: AuditResult,
    *,
    bare: Collection[str] = (),
    operation: str,
) -> AuditResult:
    """The result of an answer that is signed as it has to be; every answer goes through here.

    Args:
        keys: whose signature it needs; None for none.
        message: what came back.
        result: what was made of it.
        bare: digests of the adapters of which only the weights were asked about.
        operation: what the user called.

    Raises:
        Internal: it is not signed by one of these keys, or something else is.
    """
    if keys is None:
        return result
    try:
        return replace(result, signed_by=require_signed(keys, message, bare=bare))
    except SignatureRefused as error:
        raise Internal(
            f"A signature is required. {error.cause}",
            operation=operation,
            remedy=error.remedy,
            decision_id=result.decision_id,
        ) from None


def fitted(
    question: Question, message: audit_pb2.Verdict, *, now: datetime | None = None
) -> tuple[AuditResult, list[str]]:
    """What a verdict says, and in which ways it does not answer a question; empty: it does.

    Loaders and signatures are not looked at here. The arguments are those of `result_for`.

    Raises:
        ValueError: it cannot be read at all.
    """
    result = _wire.result_from(message)
    restricted = result.restricted_to or tuple(sorted(question.concept_ids))
    # Servers that do not say whether a verdict binds mean it by these two.
    says = message.binding if message.HasField("binding") else True
    result = replace(
        result,
        restricted_to=restricted,
        binding=says and not result.dry_run and not restricted,
        clock_skew_s=question.clock_skew_s,
    )
    wrong = [
        *_about_adapters(question, result.adapters),
        *_about_base(question, result),
        *_about_mode(question, message, result),
        *_about_time(question, result, now or datetime.now(UTC)),
    ]
    if not result.decision_id:
        wrong.append("It has no decision id, so nothing is on record.")
    return result, wrong


def _require_loader(question: Question, result: AuditResult) -> None:
    """Makes sure that a verdict which fits otherwise speaks for the loader that was asked about.

    Raises:
        Internal: it does not.
    """
    loader, loaders = question.loader, result.loaders
    if not loader or loader in loaders:
        return
    if not loaders:
        _warn_of_silence_on_loaders()
        return
    remedy = (
        f"Load it by one of these. If {loader} does load such files, name it in intake.loaders of "
        "the service's configuration."
    )
    if loader not in LOADERS:
        remedy = f"There is no loader of this name. Say {', '.join(LOADERS[:-1])} or {LOADERS[-1]}."
    raise Internal(
        f"The verdict speaks for {', '.join(loaders)} and not for {loader!r}: {loader} cannot load "
        "this file, or the service was not told to judge for it.",
        operation="audit",
        remedy=remedy,
        decision_id=result.decision_id,
    )


def _about_adapters(question: Question, audited: Sequence[AuditedAdapter]) -> Iterator[str]:
    asked = question.adapters
    if len(asked) != len(audited):
        yield f"It is about {len(audited)} adapters, the question was about {len(asked)}."
        return
    for number, (one, answer) in enumerate(zip(asked, audited, strict=True)):
        name = f"Adapter {number}" if len(asked) > 1 else "The adapter"
        pinned = {one.sha256, (one.expected_sha256 or "").lower()} - {""}
        named = is_sha256(answer.sha256) and answer.sha256 == answer.sha256.lower()
        if not named or pinned - {answer.sha256}:
            expected = " and ".join(sorted(pinned)) or "any sha256"
            yield f"{name} is {answer.sha256 or 'nameless'}, asked about was {expected}."
        parts = zip(
            ("the denoiser", "the text encoders"),
            one.strengths,
            (answer.strength, answer.text_encoder_strength),
            strict=True,
        )
        for part, wanted, given in parts:
            if not is_same_strength(wanted, given):
                yield f"{name} was judged at {given:g} for {part}, asked about was {wanted:g}."
        if answer.kind is not one.kind:
            yield f"{name} was judged as {answer.kind}, asked about was {one.kind}."


def is_same_strength(asked: float, answered: float) -> bool:
    """Whether an answer about one strength is about the other."""
    # Infinities are close to themselves, but no strength.
    return math.isfinite(asked) and math.isclose(
        asked, answered, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE
    )


def _about_base(question: Question, result: AuditResult) -> Iterator[str]:
    if not result.base_model or question.base_model not in ("", result.base_model):
        named = repr(result.base_model) if result.base_model else "no base model"
        yield f"It is about {named}, asked about was {question.base_model or 'the default'!r}."
    digest = result.digests.base_model
    if question.expected_base_digest not in ("", digest):
        yield f"Its base model has the digest {digest or 'of none'}, not the expected one."


def _about_mode(
    question: Question, message: audit_pb2.Verdict, result: AuditResult
) -> Iterator[str]:
    if result.dry_run != question.dry_run:
        asked, given = ("a dry run", "none") if question.dry_run else ("none", "a dry run")
        yield f"Asked for was {asked}, and it is {given}."
    if set(result.restricted_to) != question.concept_ids:
        concepts = ", ".join(sorted(question.concept_ids)) or "the whole library"
        yield f"It speaks of {', '.join(result.restricted_to)}, asked about was {concepts}."
    if message.mode not in _MODES:
        yield f"Its mode {message.mode} is not known."
    elif result.mode is Mode.ENFORCE and result.would_be_verdict is not result.verdict:
        yield f"It enforces {result.verdict}, but its policy decided {result.would_be_verdict}."


def _about_time(question: Question, result: AuditResult, now: datetime) -> Iterator[str]:
    decided, expires = result.decided_at, result.expires_at
    if decided is None or expires is None:
        yield "It does not say from when until when it holds."
        return
    skew = timedelta(seconds=question.clock_skew_s)
    clock = f"here it is {now:%Y-%m-%d %H:%M:%S} UTC. Compare the clocks."
    if not timedelta() < expires - decided <= LONGEST_VALIDITY + skew:
        yield f"It cannot hold from {decided} to {expires}."
    elif decided > now + skew:
        yield f"It was decided at {decided}, which is still to come: {clock}"
    elif now >= expires + skew:
        yield f"It has run out at {expires}: {clock}"


_told: set[str] = set()


def _warn_of_silence_on_loaders() -> None:
    """Once per process: an older service judges by what diffusers would load."""
    if "loaders" not in _told:
        _told.add("loaders")
        log.warning(
            "The service does not say for which loaders its verdicts speak, as older versions do "
            "not. Upgrade it: another loader than diffusers may read the same file differently."
        )
