"""Verdicts that were signed by a service, checked without it.

    from loragate import signed

    keys = signed.TrustedKeys("loragate.jwks")
    result = signed.verify(envelope, [weights], keys, strength=0.8, expected_base_digest=digest)
    if result.allowed:
        load(weights)

Needs the extra `signed`: pip install 'loragate[signed]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from loragate._question import Question
from loragate._signed.elsewhere import SIGNED_VERDICT, answer, hold
from loragate._signed.environment import keys_from_environment
from loragate._signed.keys import TrustedKey, TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate.config import CLOCK_SKEW_S
from loragate.reference import AuditOptions, Source, references_with
from loragate.results import AuditResult

__all__ = [
    "SIGNED_VERDICT",
    "SignatureRefused",
    "TrustedKey",
    "TrustedKeys",
    "keys_from_environment",
    "verify",
]


def verify(
    envelope: bytes,
    adapters: Source | Sequence[Source],
    keys: TrustedKeys,
    *,
    clock_skew: float = CLOCK_SKEW_S,
    **options: Unpack[AuditOptions],
) -> AuditResult:
    """The signed verdict about exactly these adapters, used as the options say.

    It is held against the question as an answer of the service would be: the bytes, each strength,
    the base model, the loader, its time. What the options leave open is not checked; without
    `expected_base_digest` a verdict on any base model will do.

    Args:
        envelope: `AuditResult.signed`, or the file that `loragate audit --save-signed` writes.
        adapters: bytes of all adapters that will be active together; text is no bytes.
        keys: whose signatures are believed.
        clock_skew: seconds by which the clocks here and at the service may be apart.
        **options: as of `AuditClient.audit`.

    Returns:
        The verdict, which need not be ALLOW: ask `allowed`. A pilot's ALLOW is `only_by_pilot`, or
        at least of the mode PILOT.

    Raises:
        SignatureRefused: no trusted key has signed it, it is about another use, or has run out.
        ValueError: an adapter is a place; what is there, only the service can see.
    """
    references = references_with(adapters, options)
    if any(reference.data is None for reference in references):
        raise ValueError("A signed verdict is held against bytes; read the file and pass them.")
    question = Question.of(references, options, clock_skew_s=clock_skew, keys=keys)
    return answer(hold(envelope, keys), question)
