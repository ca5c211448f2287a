"""A client from environment variables, for guards that a host program loads by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from loragate.client import AuditClient
from loragate.config import CLOCK_SKEW_S, TARGET_VARIABLE, OnUnavailable, TlsConfig
from loragate.integrations._together import Gatekeeper, OnReview
from loragate.signed import keys_from_environment

VARIABLES = {
    TARGET_VARIABLE: "where the service is, for example 127.0.0.1:50051",
    "LORAGATE_TLS_CA": "certificates to trust (PEM); speaks TLS",
    "LORAGATE_TLS_CERT": "own certificate (PEM)",
    "LORAGATE_TLS_KEY": "private key of it (PEM)",
    "LORAGATE_TOKEN_FILE": "file with a bearer token, read again for each call",
    "LORAGATE_TIMEOUT_S": "longest wait for a decision in seconds",
    "LORAGATE_ON_UNAVAILABLE": "block (default), allow or raise, where there is no decision",
    "LORAGATE_ON_REVIEW": "block (default) or allow, for a verdict of REVIEW",
    "LORAGATE_BASE_MODEL": "name under which the service knows the model that is served",
    "LORAGATE_BASE_DIGEST": "digest that this model must have at the service",
    "LORAGATE_REQUIRE_SIGNATURE": "files with public keys: believe only what one of them signed",
    "LORAGATE_REVOKED_KEYS": "ids of keys that are not believed although a file holds them",
    "LORAGATE_ACCEPT_SIGNED": "folder with signed verdicts that are believed without asking",
    "LORAGATE_CLOCK_SKEW_S": f"how far clocks may be apart, in seconds ({CLOCK_SKEW_S:g})",
}
"""What `client_from_environment` and `gatekeeper_from_environment` read."""


def client_from_environment(
    service: str, environment: Mapping[str, str] = os.environ
) -> AuditClient:
    """Makes the client that the variables describe.

    Args:
        service: who asks, for the decision log.
        environment: where to read.

    Raises:
        ValueError: a variable has a value that it cannot have.
        OSError: the token, or the keys of signatures, cannot be read.
        ImportError: signatures are required, and the extra `signed` is not installed.
    """
    files = [environment.get(f"LORAGATE_TLS_{name}") or None for name in ("CA", "CERT", "KEY")]
    token_file = environment.get("LORAGATE_TOKEN_FILE")
    skew = _seconds(environment, "LORAGATE_CLOCK_SKEW_S")
    return AuditClient(
        environment.get(TARGET_VARIABLE),
        tls=TlsConfig(*files) if any(files) else None,
        token=(lambda: Path(token_file).read_text().strip()) if token_file else None,
        timeout=_seconds(environment, "LORAGATE_TIMEOUT_S"),
        on_unavailable=cast(OnUnavailable, environment.get("LORAGATE_ON_UNAVAILABLE") or "block"),
        service=service,
        clock_skew=CLOCK_SKEW_S if skew is None else skew,
        require_signature=keys_from_environment(environment),
        accept_signed=environment.get("LORAGATE_ACCEPT_SIGNED") or None,
    )


def _seconds(environment: Mapping[str, str], variable: str) -> float | None:
    """Raises ValueError for what is no number of seconds, by the variable's name."""
    text = environment.get(variable)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{variable} is {text!r}, not a number of seconds. Set it to 30, for example."
        ) from None


def gatekeeper_from_environment(
    service: str, environment: Mapping[str, str] = os.environ
) -> Gatekeeper:
    """As `client_from_environment`, with what to do with a verdict of REVIEW and the base model.

    The service that asks is also the loader for which the verdicts have to speak.
    """
    return Gatekeeper(
        client_from_environment(service, environment),
        base_model=environment.get("LORAGATE_BASE_MODEL", ""),
        base_digest=environment.get("LORAGATE_BASE_DIGEST"),
        loader=service,
        on_review=cast(OnReview, environment.get("LORAGATE_ON_REVIEW") or "block"),
    )
