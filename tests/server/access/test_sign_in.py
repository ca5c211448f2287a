"""People sign in with a real provider over HTTP, and nobody else does."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from tests.server.access.conftest import Browser, Clock, Console, MakeConsole, oidc
from tests.server.access.openid import (
    CLIENT_SECRET,
    EC_KEY,
    ED_KEY,
    OTHER_RSA_KEY,
    PERSON,
    RSA_KEY,
    OpenIdProvider,
    signer,
)

Log = pytest.LogCaptureFixture


async def callback_of(browser: Browser, path: str = "/console/page") -> str:
    """Signs in up to the provider's answer, which is returned and not followed."""
    to_login = await browser.get(path, follow=False)
    to_provider = await browser.get(to_login.location, follow=False)
    return (await browser.get(to_provider.location, follow=False)).location


async def test_who_opens_a_page_signs_in_and_comes_back_to_it(browser: Browser) -> None:
    answer = await browser.get("/console/cases/17?language=ja&q=%E7%8C%AB")
    assert answer.status == 200
    assert answer.text.startswith("ada@example.com reviewer /console/cases/17 ")
    assert answer.url == f"{browser.url}/console/cases/17?language=ja&q=%E7%8C%AB"
    assert (await browser.get("/console/", follow=False)).status == 200
    assert (await browser.get("/console", follow=False)).location == "/console/"


async def test_two_tabs_may_sign_in_at_once(browser: Browser) -> None:
    first, second = await callback_of(browser, "/console/cases/1"), await callback_of(browser)
    for callback, end in ((second, "/console/page"), (first, "/console/cases/1")):
        assert (await browser.get(callback, follow=False)).location == end


async def test_abandoned_sign_ins_do_not_fill_the_browser_with_cookies(browser: Browser) -> None:
    for _ in range(20):
        await callback_of(browser)
    assert 0 < len([one for one in browser.http.cookie_jar if "login" in one.key]) <= 6
    assert (await browser.get("/console/page")).status == 200


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["everyone"], "viewer"),
        ("reviewers everyone", "reviewer"),
        (["reviewers", "admins", "everyone"], "admin"),
    ],
)
async def test_groups_give_the_highest_role(
    browser: Browser, provider: OpenIdProvider, groups: Any, role: str
) -> None:
    provider.person["groups"] = groups
    assert (await browser.get("/console/page")).text.startswith(f"ada@example.com {role} ")


async def test_a_group_that_gives_a_permission_and_no_role_is_remembered(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> None:
    roles = {"reviewer": ["reviewers"], "concept_editor": ["brand-leads"]}
    console = await make_console(oidc=oidc(provider, secrets_folder), roles=roles)
    provider.redirect_uris.add(f"{console.url}/console/callback")
    for groups, may in (["reviewers", "brand-leads"], True), (["reviewers"], False):
        provider.person["groups"] = groups
        answer = await (await console.new_browser()).get("/console/editing")
        assert answer.status == (200 if may else 403)
    provider.person["groups"] = ["brand-leads"]  # no role, no access
    assert (await (await console.new_browser()).get("/console/page")).status == 403


async def test_groups_may_lie_deeper_in_the_token(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> None:
    settings = oidc(
        provider, secrets_folder, groups_claim="realm_access.roles", user_claim="preferred_username"
    )
    console = await make_console(oidc=settings)
    provider.redirect_uris.add(f"{console.url}/console/callback")
    provider.person = {
        "sub": "1",
        "preferred_username": "山田　花子",
        "realm_access": {"roles": ["admins"]},
    }
    browser = await console.new_browser()
    assert (await browser.get("/console/page")).text.startswith("山田　花子 admin ")


async def test_names_are_composed_so_that_the_same_ones_look_the_same(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.person["email"] = "ame\u0301lie@example.com"
    assert (await browser.get("/console/page")).text.startswith("am\u00e9lie@example.com ")


async def test_people_may_be_in_more_groups_than_fit_into_a_cookie(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.person["groups"] = ["reviewers", *(f"CN=Team {n},OU=Studio" for n in range(500))]
    assert (await browser.get("/console/page")).status == 200
    assert len(browser.cookie()) < 500


async def test_groups_with_a_role_have_to_fit(
    make_console: MakeConsole, provider: OpenIdProvider, secrets_folder: Path
) -> None:
    many = [f"CN=Team {n},OU=Studio" for n in range(500)]
    console = await make_console(oidc=oidc(provider, secrets_folder), roles={"viewer": many})
    provider.redirect_uris.add(f"{console.url}/console/callback")
    provider.person["groups"] = many
    answer = await (await console.new_browser()).get("/console/page")
    assert (answer.status, answer.code) == (403, "groups_unusable")


@pytest.mark.parametrize("groups", [[], None, ["Reviewers"], ["reviewers "], "nobody"])
async def test_who_has_no_role_gets_no_session(
    browser: Browser, provider: OpenIdProvider, groups: Any, caplog: Log
) -> None:
    provider.person["groups"] = groups
    answer = await browser.get("/console/page")
    assert (answer.status, answer.code) == (403, "no_role")
    assert "ada@example.com" in answer.text
    assert browser.cookie() == ""
    assert "access refused: no_role" in caplog.messages


@pytest.mark.parametrize(
    ("person", "code"),
    [
        ({"email": None}, "name_unusable"),
        ({"email": ""}, "name_unusable"),
        ({"email": " ada@example.com"}, "name_unusable"),
        ({"email": ["ada@example.com"]}, "name_unusable"),
        ({"email": "ada\n2026 signed in"}, "name_unusable"),
        ({"email": "ada\u202emoc.elpmaxe"}, "name_unusable"),
        ({"email": "a" * 201}, "name_unusable"),
        ({"email_verified": False}, "name_unusable"),
        ({"groups": {"reviewers": True}}, "groups_unusable"),
        ({"groups": ["reviewers", 7]}, "groups_unusable"),
    ],
)
async def test_unusable_names_and_groups_are_refused(
    browser: Browser, provider: OpenIdProvider, person: dict[str, Any], code: str
) -> None:
    provider.person |= person
    answer = await browser.get("/console/page")
    assert (answer.status, answer.code) == (403, code)


async def test_what_the_token_lacks_comes_from_userinfo(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.person = {"sub": PERSON["sub"]}
    provider.userinfo = dict(PERSON)
    provider.description["userinfo_endpoint"] = f"{provider.address}/userinfo"
    assert (await browser.get("/console/page")).text.startswith("ada@example.com reviewer ")


async def test_userinfo_about_somebody_else_is_refused(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.person = {"sub": "another"}
    provider.userinfo = dict(PERSON)
    provider.description["userinfo_endpoint"] = f"{provider.address}/userinfo"
    assert (await browser.get("/console/page")).code == "token_refused"


def by_hand(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token that libraries refuse to make."""
    parts = [_base64(json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, _base64(sign(".".join(parts).encode()))])


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(claims: dict[str, Any]) -> str:
    return by_hand({"alg": "none"}, claims, lambda _: b"")


def with_public_key_as_secret(claims: dict[str, Any]) -> str:
    secret = RSA_KEY.as_pem(private=False)
    header = {"alg": "HS256", "kid": "rsa-1"}
    return by_hand(header, claims, lambda text: hmac.digest(secret, text, "sha256"))


def with_client_secret(claims: dict[str, Any]) -> str:
    header = {"alg": "HS256", "kid": "rsa-1"}
    secret = CLIENT_SECRET.encode()
    return by_hand(header, claims, lambda text: hmac.digest(secret, text, "sha256"))


def with_a_demand_that_we_do_not_know(claims: dict[str, Any]) -> str:
    header = {"alg": "RS256", "kid": "rsa-1", "crit": ["prove"], "prove": True}
    key = RSA_KEY.private_key
    assert key is not None
    return by_hand(header, claims, lambda text: key.sign(text, PKCS1v15(), SHA256()))


def with_another_key_of_that_id(claims: dict[str, Any]) -> str:
    return signer(OTHER_RSA_KEY, kid="rsa-1")(claims)


def altered(claims: dict[str, Any]) -> str:
    header, _, signature = signer()(claims).split(".")
    _, other, _ = signer()({**claims, "groups": ["admins"]}).split(".")
    return ".".join((header, other, signature))


@pytest.mark.parametrize(
    "sign",
    [
        unsigned,
        with_public_key_as_secret,
        with_client_secret,
        with_another_key_of_that_id,
        altered,
        signer(EC_KEY, "ES256", kid="rsa-1"),
        with_a_demand_that_we_do_not_know,
        signer(RSA_KEY, "RS256", kid=None),
        lambda _: "no token",
        lambda _: "a.b.c",
    ],
)
async def test_tokens_that_the_provider_did_not_sign_are_refused(
    browser: Browser, provider: OpenIdProvider, sign: Any
) -> None:
    provider.sign = sign
    answer = await browser.get("/console/page")
    assert (answer.status, answer.code) == (403, "token_refused")
    assert browser.cookie() == ""


async def test_keys_for_other_purposes_count_for_nothing(
    browser: Browser, provider: OpenIdProvider
) -> None:
    for_encryption = RSAKey.import_key(
        OTHER_RSA_KEY.as_dict(private=True) | {"use": "enc", "kid": "enc-1"}
    )
    unknown = {"kty": "LATTICE", "kid": "new"}
    broken = {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}
    provider.published.append(for_encryption)
    provider.odd_keys = [unknown, broken, {"kid": "nothing"}]
    assert (await browser.get("/console/page")).status == 200
    provider.sign = signer(OTHER_RSA_KEY, kid="enc-1")
    assert (await browser.get("/console/login")).code == "token_refused"


async def test_a_provider_without_keys_for_signatures_is_set_up_wrongly(
    browser: Browser, provider: OpenIdProvider
) -> None:
    secret = {"kty": "oct", "kid": "rsa-1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}
    for_encryption = RSA_KEY.as_dict(private=False) | {"use": "enc"}
    provider.published, provider.odd_keys = [], [secret, for_encryption]
    assert (await browser.get("/console/page")).code == "provider_wrong"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA_KEY, "RS512"),
        (RSA_KEY, "PS256"),
        (EC_KEY, "ES256"),
        (ED_KEY, "Ed25519"),
        (ED_KEY, "EdDSA"),
    ],
)
async def test_tokens_may_be_signed_in_other_ways(
    browser: Browser, provider: OpenIdProvider, key: Any, algorithm: str
) -> None:
    provider.sign = signer(key, algorithm)
    assert (await browser.get("/console/page")).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://elsewhere.example.com"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": []},
        {"aud": None},
        {"aud": ["loragate", "another"]},  # without azp
        {"aud": ["loragate", "another"], "azp": "another"},
        {"azp": "another"},
        {"aud": "another", "azp": "loragate"},
        {"sub": None},
        {"sub": ""},
        {"exp": None},
        {"exp": 1},
        {"exp": "tomorrow"},
        {"iat": None},
        {"iat": 4_000_000_000},
        {"nbf": 4_000_000_000},
        {"at_hash": "another"},
    ],
    ids=str,
)
async def test_tokens_for_somebody_else_or_another_time_are_refused(
    browser: Browser, provider: OpenIdProvider, change: dict[str, Any], caplog: Log
) -> None:
    provider.change = change
    answer = await browser.get("/console/page")
    assert (answer.status, answer.code) == (403, "token_refused")
    assert browser.cookie() == ""
    assert "access refused: token_refused" in caplog.messages
    assert "eyJ" not in str([vars(record) for record in caplog.records])


async def test_a_token_for_several_audiences_is_believed_if_it_was_made_for_us(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.change = {"aud": ["another", "loragate"], "azp": "loragate"}
    assert (await browser.get("/console/page")).status == 200


async def test_clocks_may_differ_a_little(
    console: Console, provider: OpenIdProvider, clock: Clock
) -> None:
    for off_s, status in ((30, 200), (90, 403)):
        provider.change = {"exp": int(clock()) - off_s, "iat": int(clock()) + off_s}
        browser = await console.new_browser()
        assert (await browser.get("/console/page")).status == status


async def test_new_keys_are_fetched_when_a_token_names_them(
    console: Console, provider: OpenIdProvider, clock: Clock
) -> None:
    assert (await (await console.new_browser()).get("/console/page")).status == 200
    provider.published = [OTHER_RSA_KEY]
    provider.sign = signer(OTHER_RSA_KEY)
    clock.ahead_s += 60
    assert (await (await console.new_browser()).get("/console/page")).status == 200
    assert provider.times_asked("/keys") == 2


async def test_unknown_keys_do_not_make_us_fetch_keys_over_and_over(
    console: Console, provider: OpenIdProvider
) -> None:
    provider.sign = signer(OTHER_RSA_KEY)
    for _ in range(5):
        browser = await console.new_browser()
        assert (await browser.get("/console/page")).code == "token_refused"
    assert provider.times_asked("/keys") == 1
    assert provider.times_asked("/.well-known/openid-configuration") == 1
