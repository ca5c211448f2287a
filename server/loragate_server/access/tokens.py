"""ID tokens: which are believed, and which are not, and why not."""

from __future__ import annotations

import warnings
from typing import Any, Final

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning

from loragate_server.access.provider import Provider, Tokens
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock

LEEWAY_S: Final = 60
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""Signatures by public keys only. With HMAC in the list, a public key could serve as secret."""


async def believed_claims(
    tokens: Tokens, provider: Provider, nonce: str, clock: Clock
) -> dict[str, Any]:
    """The claims of the ID token, if the provider signed it, for us, for this sign-in, just now.

    Raises:
        AccessRefused: TOKEN_REFUSED, or the provider's keys cannot be had.
    """
    try:
        header = jws.extract_compact(tokens.id_token.encode()).headers()
        key_id = header.get("kid")
        keys = await provider.keys(key_id if isinstance(key_id, str) else None)
        with warnings.catch_warnings():
            # EdDSA is the older name of Ed25519, which providers still write.
            warnings.simplefilter("ignore", SecurityWarning)
            token = jwt.decode(tokens.id_token, keys, algorithms=ALGORITHMS)
        issuer = (await provider.description()).issuer
        _check(token, tokens, issuer=issuer, client_id=provider.client_id, nonce=nonce, clock=clock)
    except (JoseError, ValueError, TypeError) as error:
        raise AccessRefused(Refusal.TOKEN_REFUSED, _reason(error)) from error
    return token.claims


def _check(
    token: jwt.Token, tokens: Tokens, *, issuer: str, client_id: str, nonce: str, clock: Clock
) -> None:
    """Audience, issuer, times, nonce, authorized party and the access token's hash."""
    claims = CodeIDToken(
        token.claims,
        token.header,
        options={
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": client_id},
            "sub": {"essential": True},
        },
        params={"nonce": nonce, "client_id": client_id, "access_token": tokens.access_token},
    )
    claims.validate(now=int(clock()), leeway=LEEWAY_S)


def _reason(error: Exception) -> str:
    """What was wrong, in the library's words, which name claims and not what is in them."""
    if isinstance(error, InvalidKeyIdError):
        return "signed with a key that the provider does not publish"
    return str(error)[:200] if isinstance(error, JoseError) else "malformed"
