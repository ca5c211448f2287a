"""`VerdictSigner`: makes the signed form of a verdict, or refuses the verdict."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from loragate_server.config.signing import SigningSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.signing.envelope import NotSignedError, enveloped, signature
from loragate_server.record.signing.keys import KeyUnusableError, OpenKey, open_keys
from loragate_server.record.signing.statement import payload
from loragate_server.record.verdict import Verdict

RETRY_AFTER_S = 5.0

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class VerdictSigner:
    """Signs with every key that is within its time. Thread-safe as its keys are."""

    def __init__(self, section: SigningSection, now: Callable[[], datetime] = _now) -> None:
        """Opens the keys, and tries those that sign now.

        Raises:
            KeyUnusableError: one cannot be used, or none signs now.
        """
        self._verifier = section.verifier
        self._now = now
        self._keys = open_keys(section, now())
        for key in self._keys:
            if key.signs_at(now()):
                _try(key)

    def signed(self, verdict: Verdict) -> Verdict:
        """The verdict with its envelope.

        Raises:
            NoDecisionError: SIGNING_UNAVAILABLE; a key failed, or none is within its time.
        """
        try:
            data = enveloped(payload(verdict, self._verifier), self._in_time())
        except NotSignedError as error:
            _log.exception("the key %s did not sign", error.key_id)
            raise _unavailable(f"The key {error.key_id!r} did not sign.", error.key_id) from error
        return replace(verdict, envelope=data, envelope_sha256=hashlib.sha256(data).hexdigest())

    def check(self) -> None:
        """For readiness: whether a key is within its time.

        Raises:
            NoDecisionError: SIGNING_UNAVAILABLE.
        """
        self._in_time()

    def _in_time(self) -> list[OpenKey]:
        now = self._now()
        keys = [key for key in self._keys if key.signs_at(now)]
        if not keys:
            raise _unavailable("No key for signing is within its time.", "")
        return keys


def _try(key: OpenKey) -> None:
    try:
        signature(key, b"loragate-server can sign")
    except Exception as error:
        raise KeyUnusableError(
            f"signing.keys: {key.id}: it does not sign, or public_key belongs to another key: "
            f"{type(error).__name__}: {error}"
        ) from error


def _unavailable(message: str, key: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.SIGNING_UNAVAILABLE,
        message,
        remedy="The operator has to mend signing.keys; without a signature nothing is decided.",
        metadata={"key": key} if key else None,
        retry_after_s=RETRY_AFTER_S,
    )
