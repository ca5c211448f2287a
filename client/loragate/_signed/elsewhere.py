"""Verdicts that were given elsewhere: whether one answers a question that is asked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loragate._question import Question, fitted, is_same_strength
from loragate._signed.answer import require_bare
from loragate._signed.envelope import open_envelope
from loragate._signed.keys import TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate._signed.statement import Statement, read_statement
from loragate.reference import AdapterReference
from loragate.results import AuditResult, Reason
from loragate.v1 import audit_pb2

SIGNED_VERDICT = "signed_verdict"
"""Code of the reason of a result that was read from a signed verdict."""

_REMEDY = "Load nothing on it; ask the service about this use."


@dataclass(frozen=True)
class Held:
    """A verdict with a signature of a trusted key, whatever it says.

    Attributes:
        envelope: as it was read.
        key_id: of the key.
    """

    envelope: bytes
    key_id: str
    statement: Statement

    @property
    def sha256s(self) -> tuple[str, ...]:
        """Digests of the adapters that it judges, sorted."""
        return tuple(sorted(one.sha256 for one in self.statement.verdict.adapters))


def hold(envelope: bytes, keys: TrustedKeys) -> Held:
    """Opens a signed verdict.

    Raises:
        SignatureRefused: no trusted key has signed it, or it cannot be understood.
    """
    opened = open_envelope(envelope, keys)
    return Held(envelope, opened.key_id, read_statement(opened.payload))


def answer(held: Held, question: Question) -> AuditResult:
    """The verdict as the answer to a question, held against it like any answer.

    Raises:
        SignatureRefused: it answers another one, or has run out.
    """
    statement = held.statement
    message = _in_order(statement.verdict, question.adapters)
    try:
        result, wrong = fitted(question, message)
    except ValueError as error:
        raise SignatureRefused(f"The signed verdict cannot be read: {error}", _REMEDY) from None
    if question.loader and question.loader not in result.loaders:
        wrong.append(
            f"It speaks for {', '.join(result.loaders) or 'no loader'} and not for "
            f"{question.loader!r}."
        )
    if wrong:
        raise SignatureRefused(
            f"The signed verdict is not about this use. {' '.join(wrong)}", _REMEDY
        )
    require_bare(statement, {one.sha256 for one in question.adapters})
    said = f"Signed by the key {held.key_id}; reasons and findings are on record at the service."
    return replace(
        result,
        reasons=(Reason(SIGNED_VERDICT, said),),
        signed=held.envelope,
        signed_by=held.key_id,
    )


def _in_order(message: audit_pb2.Verdict, asked: Sequence[AdapterReference]) -> audit_pb2.Verdict:
    """The verdict with its adapters as they were asked about: their order changes no picture."""
    left, ordered = list(message.adapters), []
    for one in asked:
        fit = next((found for found in left if _is_meant(found, one)), None)
        if fit is None:
            return message
        left.remove(fit)
        ordered.append(fit)
    made = audit_pb2.Verdict()
    made.CopyFrom(message)
    del made.adapters[:]
    made.adapters.extend([*ordered, *left])
    return made


def _is_meant(found: audit_pb2.AuditedAdapter, asked: AdapterReference) -> bool:
    strengths = (found.denoiser_strength, found.text_encoder_strength)
    return found.sha256 == asked.sha256 and all(
        math.isfinite(one) and is_same_strength(one, given)
        for one, given in zip(asked.strengths, strengths, strict=True)
    )
