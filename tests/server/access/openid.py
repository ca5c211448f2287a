"""An OpenID provider over real HTTP, that signs with real keys and can be told to misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "loragate", "a-client-secret-of-the-tests"
PERSON = {"sub": "248289761001", "email": "ada@example.com", "groups": ["reviewers", "everyone"]}
RSA_KEY = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
OTHER_RSA_KEY = RSAKey.generate_key(2048, {"kid": "rsa-2", "use": "sig"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
ED_KEY = OKPKey.generate_key("Ed25519", {"kid": "ed-1", "use": "sig"})

Sign = Callable[[dict[str, Any]], str]


def signer(key: Key = RSA_KEY, algorithm: str = "RS256", **header: Any) -> Sign:
    """Signs claims as a provider does."""

    def sign(claims: dict[str, Any]) -> str:
        fields = {"alg": algorithm, "kid": key.kid, **header}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of EdDSA, the older name
            return jwt.encode(
                {name: value for name, value in fields.items() if value is not None},
                claims,
                key,
                algorithms=[algorithm],
            )

    return sign


@dataclass
class OpenIdProvider:
    """Discovery, authorization, tokens, keys, userinfo and the end of its sessions.

    What tests change lies open: the person who is signed in at the provider, the claims and the
    signature of the next token, and answers that are given instead of right ones.
    """

    clock: Callable[[], float]
    person: dict[str, Any] = field(default_factory=lambda: dict(PERSON))
    userinfo: dict[str, Any] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)
    """Claims of the next ID token that are otherwise than they should be; None leaves one out."""

    sign: Sign = field(default_factory=signer)
    published: list[Key] = field(default_factory=lambda: [RSA_KEY, EC_KEY, ED_KEY])
    odd_keys: list[dict[str, Any]] = field(default_factory=list)
    description: dict[str, Any] = field(default_factory=dict)
    refuse: str = ""
    redirect_uris: set[str] = field(default_factory=set)
    statuses: dict[str, int] = field(default_factory=dict)
    """Path to the error that is answered there."""

    delays_s: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[self._watch()])
        application.router.add_get("/.well-known/openid-configuration", self._describe)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/token", self._token)
        application.router.add_get("/keys", self._keys)
        application.router.add_get("/userinfo", self._userinfo)
        application.router.add_get("/end", self._end)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def times_asked(self, path: str) -> int:
        return self.asked.count(path)

    def _watch(self) -> Any:
        @web.middleware
        async def watch(request: web.Request, handler: Any) -> web.StreamResponse:
            self.asked.append(request.path)
            await asyncio.sleep(self.delays_s.get(request.path, 0))
            if request.path in self.statuses:
                return web.Response(status=self.statuses[request.path], text="<html>broken</html>")
            return await handler(request)

        return watch

    async def _describe(self, _: web.Request) -> web.Response:
        right = {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        return web.json_response(_changed(right, self.description))

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        wanted = {"response_type": "code", "client_id": CLIENT_ID, "code_challenge_method": "S256"}
        wrong = [name for name, value in wanted.items() if query.get(name) != value]
        if wrong or "openid" not in query["scope"].split() or not query.get("nonce"):
            raise web.HTTPBadRequest(text=f"wrong request: {wrong}")
        if query["redirect_uri"] not in self.redirect_uris:
            raise web.HTTPBadRequest(text="unknown redirect_uri")
        answer = {"state": query["state"]}
        if self.refuse:
            answer |= {"error": self.refuse, "error_description": "<b>no</b>"}
        else:
            answer["code"] = secrets.token_urlsafe(16)
            self._codes[answer["code"]] = dict(query)
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        posted = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not posted and (scheme, unquote(given)) != ("Basic", right):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self._codes.pop(str(form.get("code")), None)
        verifier = str(form.get("code_verifier")).encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        if (
            form.get("grant_type") != "authorization_code"
            or asked is None
            or asked["code_challenge"] != digest
            or asked["redirect_uri"] != form.get("redirect_uri")
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        tokens = {"access_token": secrets.token_urlsafe(16), "token_type": "Bearer"}
        self._access_token = tokens["access_token"]
        return web.json_response({**tokens, "id_token": self.sign(self._claims(asked["nonce"]))})

    def _claims(self, nonce: str) -> dict[str, Any]:
        now = int(self.clock())
        right = {
            **self.person,
            "iss": self.address,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
        }
        return _changed(right, self.change)

    async def _keys(self, _: web.Request) -> web.Response:
        keys = [key.as_dict(private=False) for key in self.published]
        return web.json_response({"keys": [*self.odd_keys, *keys]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._access_token}":
            raise web.HTTPUnauthorized
        return web.json_response(self.userinfo)

    async def _end(self, request: web.Request) -> web.Response:
        if request.query["client_id"] != CLIENT_ID:
            raise web.HTTPBadRequest
        raise web.HTTPFound(request.query["post_logout_redirect_uri"])


def _changed(right: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = {**right, **change}
    return {name: value for name, value in both.items() if value is not None}
