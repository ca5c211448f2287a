"""Holds an answer of the service against what is signed of it: the only place that does."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from loragate._signed.envelope import open_envelope
from loragate._signed.keys import TrustedKeys
from loragate._signed.refusal import SignatureRefused
from loragate._signed.statement import Statement, read_statement
from loragate.v1 import audit_pb2

_FIELDS = (
    "decision_id",
    "verdict",
    "would_be_verdict",
    "mode",
    "binding",
    "dry_run",
    "restricted_to_concept_ids",
    "loaders",
    "base_model",
    "digests",
    "engine_version",
    "decided_at",
    "expires_at",
)
_OF_ADAPTERS = ("sha256", "kind", "size_bytes", "denoiser_strength", "text_encoder_strength")


def require_signed(
    keys: TrustedKeys, message: audit_pb2.Verdict, *, bare: Collection[str] = ()
) -> str:
    """The id of a trusted key that has signed all that a load depends on in an answer.

    Args:
        keys: whose signatures are believed.
        message: the answer.
        bare: digests of the adapters of which only the weights were asked about.

    Raises:
        SignatureRefused: none has, or it has signed something else.
    """
    opened = open_envelope(message.dsse_envelope, keys)
    statement = read_statement(opened.payload)
    if different := list(_differences(message, statement)):
        raise SignatureRefused(
            f"What is signed is another verdict than the one that came: {', '.join(different)} "
            "differs.",
            "Load nothing; find out what stands between this client and the service.",
        )
    require_bare(statement, bare)
    return opened.key_id


def require_bare(statement: Statement, bare: Collection[str]) -> None:
    """Makes sure that the weights were judged alone.

    Raises:
        SignatureRefused: they were judged with an `adapter_config.json`, which changes what they
            do, and will be loaded without.
    """
    if beside := [sha256 for sha256 in statement.configured if sha256 in bare]:
        raise SignatureRefused(
            f"The adapter {beside[0]} was judged with an adapter_config.json beside it, which "
            "changes what the weights do.",
            "Ask the service about the weights alone.",
        )


def _differences(message: audit_pb2.Verdict, statement: Statement) -> Iterator[str]:
    signed = statement.verdict
    for name in _FIELDS:
        if getattr(message, name) != getattr(signed, name):
            yield name
    told = [[getattr(one, name) for name in _OF_ADAPTERS] for one in message.adapters]
    meant = [[getattr(one, name) for name in _OF_ADAPTERS] for one in signed.adapters]
    if told != meant:
        yield "adapters"
