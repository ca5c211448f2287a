"""The OpenID provider over HTTP: what it says of itself, its keys, and tokens for a code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs
from authlib.oauth2 import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock
from loragate_server.config.console import OidcSection

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 1024 * 1024
FRESH_S: Final = 3600.0
"""After this time, description and keys are fetched again."""
FAILURE_S: Final = 3.0
"""For this time, a provider that failed to describe itself is not asked again."""
MIN_REFRESH_S: Final = 10.0
"""Tokens with unknown key ids cannot make us fetch keys more often than this."""

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DISCOVERY: Final = "/.well-known/openid-configuration"
_KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})  # no `oct`: HMAC keys are never public


_Model = TypeVar("_Model", bound=BaseModel)


class Description(BaseModel):
    """What a provider says of itself, as far as we need it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class Tokens(BaseModel):
    """What a provider gives for a code, as far as we need it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id_token: str
    access_token: str | None = None


class Provider:
    """Asks the provider, remembers what changes seldom, and says plainly when it cannot be asked.

    All methods raise `AccessRefused` with PROVIDER_DOWN when it may work in a minute, and with
    PROVIDER_WRONG when somebody has to change a setting.
    """

    def __init__(
        self, section: OidcSection, client_secret: str, redirect_uri: str, clock: Clock
    ) -> None:
        self.client_id = section.client_id
        self.redirect_uri = redirect_uri
        self._issuer = section.issuer
        self._client_secret = client_secret
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None
        self._description: tuple[float, Description] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._failure: tuple[float, AccessRefused] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Makes the HTTP client; asks nobody."""
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.ACCEPT: "application/json"},
        )

    async def close(self) -> None:
        """Ends its connections."""
        if self._http is not None:
            await self._http.close()

    async def description(self) -> Description:
        """The provider's description of itself, fetched when it is first needed."""
        async with self._one_at_a_time:
            if self._description is None or self._age_s(self._description[0]) > FRESH_S:
                self._description = (self._clock(), await self._fetch_description_once())
            return self._description[1]

    async def keys(self, key_id: str | None) -> KeySet:
        """The provider's public keys, fetched again if none of them has this id."""
        description = await self.description()
        async with self._one_at_a_time:
            if self._keys is None or self._stale(*self._keys, key_id):
                self._keys = (self._clock(), await self._fetch_keys(description.jwks_uri))
            return self._keys[1]

    async def redeem(self, code: str, verifier: str) -> Tokens:
        """The tokens for a code, which the provider accepts once.

        Raises:
            AccessRefused: also with PROVIDER_REFUSED, when it does not accept the code.
        """
        description = await self.description()
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self.redirect_uri, code_verifier=verifier
        )
        methods = description.token_endpoint_auth_methods_supported
        basic = "client_secret_basic" in methods or "client_secret_post" not in methods
        client = ClientAuth(
            self.client_id,
            self._client_secret,
            "client_secret_basic" if basic else "client_secret_post",
        )
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        address, headers, body = client.prepare("POST", description.token_endpoint, form, body)
        status, answer = await self._ask("POST", address, headers=headers, body=body)
        if status != 200:
            raise _not_redeemed(status, answer)
        return _parsed(Tokens, answer, "the answer of its token endpoint")

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """Claims that the provider does not put into ID tokens; empty if it has no such place."""
        address = (await self.description()).userinfo_endpoint
        if address is None:
            return {}
        headers = {"Authorization": f"Bearer {access_token}"}
        status, answer = await self._ask("GET", address, headers=headers)
        if status != 200:
            raise AccessRefused(Refusal.PROVIDER_WRONG, f"userinfo answers {status}")
        return answer

    async def _fetch_description_once(self) -> Description:
        """Whoever waited meanwhile gets the same failure, and not a wait of their own."""
        if self._failure is not None and self._age_s(self._failure[0]) < FAILURE_S:
            refused = self._failure[1]
            raise AccessRefused(refused.refusal, refused.detail)
        try:
            return await self._fetch_description()
        except AccessRefused as refused:
            self._failure = (self._clock(), refused)
            raise

    async def _fetch_description(self) -> Description:
        address = self._issuer + _DISCOVERY
        status, answer = await self._ask("GET", address)
        if status != 200:
            raise AccessRefused(Refusal.PROVIDER_WRONG, f"{address} answers {status}")
        found = _parsed(Description, answer, address)
        if found.issuer.rstrip("/") != self._issuer:  # the setting has lost its last slash
            raise AccessRefused(Refusal.PROVIDER_WRONG, f"its issuer is {found.issuer[:200]}")
        for name, endpoint in found:
            if name.endswith(("_endpoint", "_uri")) and endpoint and not self._safe(endpoint):
                raise AccessRefused(Refusal.PROVIDER_WRONG, f"its {name} is no https address")
        return found

    async def _fetch_keys(self, address: str) -> KeySet:
        status, answer = await self._ask("GET", address)
        listed = answer.get("keys")
        if status != 200 or not isinstance(listed, list):
            raise AccessRefused(Refusal.PROVIDER_WRONG, f"{address} answers {status} without keys")
        keys = [key for one in listed if (key := _signing_key(one)) is not None]
        if not keys:
            raise AccessRefused(Refusal.PROVIDER_WRONG, f"{address} has no key for signatures")
        return KeySet(keys)

    async def _ask(
        self, method: str, address: str, *, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer; an empty one where an error has none."""
        if self._http is None:
            raise RuntimeError("access was not started")
        try:
            async with self._http.request(
                method, address, headers=headers, data=body or None, allow_redirects=False
            ) as response:
                status, raw = response.status, await _body(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            host = urlsplit(address).netloc
            raise AccessRefused(Refusal.PROVIDER_DOWN, f"{host}: {_kind(error)}") from error
        if status >= 500 or status == 429:
            raise AccessRefused(Refusal.PROVIDER_DOWN, f"it answers {status}")
        return status, _json_object(raw, status)

    def _stale(self, fetched_s: float, keys: KeySet, key_id: str | None) -> bool:
        unknown = key_id is not None and all(key.kid != key_id for key in keys)
        age_s = self._age_s(fetched_s)
        return age_s > FRESH_S or (unknown and age_s >= MIN_REFRESH_S)

    def _age_s(self, fetched_s: float) -> float:
        return self._clock() - fetched_s

    def _safe(self, address: str) -> bool:
        parts = urlsplit(address)
        local = parts.hostname in _LOCAL and urlsplit(self._issuer).hostname in _LOCAL
        allowed = ("https", "http") if local else ("https",)
        return bool(parts.hostname) and parts.scheme in allowed


async def _body(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise AccessRefused(Refusal.PROVIDER_WRONG, "its answer is too long")
    return bytes(raw)


def _json_object(raw: bytes, status: int) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    if status == 200:
        raise AccessRefused(Refusal.PROVIDER_WRONG, "its answer is no JSON object")
    return {}


def _parsed(model: type[_Model], answer: dict[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        fields = ", ".join(sorted({str(one["loc"][0]) for one in error.errors()}))
        raise AccessRefused(Refusal.PROVIDER_WRONG, f"{where} lacks or garbles {fields}") from error


def _signing_key(one: Any) -> Key | None:
    """The key, if it is one for signatures that we know how to check."""
    if not isinstance(one, dict) or one.get("kty") not in _KEY_TYPES:
        return None
    if one.get("use", "sig") != "sig":
        return None
    try:
        return JWKRegistry.import_key(one)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _not_redeemed(status: int, answer: dict[str, Any]) -> AccessRefused:
    error = str(answer.get("error", ""))
    if error == "invalid_grant":
        return AccessRefused(Refusal.PROVIDER_REFUSED, "it does not accept the code")
    return AccessRefused(
        Refusal.PROVIDER_WRONG, f"its token endpoint answers {status}, {plain_code(error)}"
    )


def plain_code(error: str) -> str:
    """An error code of OAuth, if it is one; strangers can write what they like there."""
    plain = error.isascii() and error.replace("_", "").isalnum()
    return error[:60] if plain else "no reason"


def _kind(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
