"""A sign-in belongs to the browser that began it, is used once, and leads nowhere else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.access.paths import local_target
from tests.server.access.conftest import Browser, Clock, Console
from tests.server.access.openid import OpenIdProvider
from tests.server.access.test_sign_in import callback_of

ELSEWHERE = [
    "https://evil.example.com/console/",
    "//evil.example.com/console/",
    "/\\evil.example.com/console/",
    "/console/\\evil.example.com",
    "/console//evil.example.com",
    "/console/../metrics",
    "/console/%2e%2e/metrics",
    "/console/%252e%252e/metrics",
    "/console/..%2fmetrics",
    "/console/%0d%0aSet-Cookie:a=b",
    "/console/\r\nSet-Cookie: a=b",
    "/consolex",
    "/console",
    "/console/漢字",
    "javascript:alert(1)",
    "/console/login?next=/console/",
    "/console/logout",
    "/console/" + "a" * 2000,
    "",
]


async def test_riddles_go_out_with_the_sign_in(browser: Browser) -> None:
    to_provider = await browser.get("/console/login?next=/console/page", follow=False)
    query = parse_qs(urlsplit(to_provider.location).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["scope"] == ["openid profile email"]
    riddles = [query[name][0] for name in ("state", "nonce", "code_challenge")]
    assert len(set(riddles)) == 3
    assert all(len(riddle) >= 43 for riddle in riddles)
    assert "page" not in to_provider.location


async def test_another_browser_cannot_finish_a_sign_in(console: Console) -> None:
    callback = await callback_of(await console.new_browser())
    answer = await (await console.new_browser()).get(callback)
    assert (answer.status, answer.code) == (400, "login_unknown")


async def test_another_state_is_refused(browser: Browser) -> None:
    callback = await callback_of(browser)
    state = parse_qs(urlsplit(callback).query)["state"][0]
    # The cookie is found by the beginning of the state, and holds all of it.
    for other in (state[:8] + "A" * 35, "A" * 43, "", state[:8]):
        answer = await browser.get(callback.replace(state, other))
        assert (answer.status, answer.code) == (400, "login_unknown")
        assert browser.cookie() == ""


@pytest.mark.parametrize("name", ["state", "code", "iss", "error"])
@pytest.mark.parametrize("value", ["a;b=c, d", "\x00\r\n", "漢字", "%ff", "'\"<b>", "a" * 4000])
async def test_odd_answers_are_refused_and_do_no_harm(
    browser: Browser, name: str, value: str
) -> None:
    await browser.get("/console/login", follow=False)
    query = {"state": "a", "code": "b", name: value}
    answer = await browser.get(f"/console/callback?{urlencode(query)}")
    assert (answer.status, answer.code) == (400, "login_unknown")
    right = await callback_of(browser)
    state = parse_qs(urlsplit(right).query)["state"][0]
    answer = await browser.get(f"/console/callback?{urlencode({**query, 'state': state})}")
    assert answer.status in (400, 403)
    assert "<b>" not in answer.text


async def test_an_answer_is_used_once(browser: Browser, provider: OpenIdProvider) -> None:
    callback = await callback_of(browser)
    kept = {one.key: one.value for one in browser.http.cookie_jar}
    assert (await browser.get(callback, follow=False)).status == 303
    assert (await browser.get(callback)).code == "login_unknown"
    for name, value in kept.items():
        browser.set_cookie(value, name)
    answer = await browser.get(callback)
    assert (answer.status, answer.code) == (400, "login_unknown")
    assert provider.times_asked("/token") == 1


async def test_a_code_that_was_used_elsewhere_is_refused(
    console: Console, provider: OpenIdProvider
) -> None:
    mine, theirs = await console.new_browser(), await console.new_browser()
    stolen = parse_qs(urlsplit(await callback_of(theirs)).query)["code"][0]
    callback = await callback_of(mine)
    own = parse_qs(urlsplit(callback).query)["code"][0]
    answer = await mine.get(callback.replace(own, stolen))
    assert (answer.status, answer.code) == (403, "provider_refused")
    assert mine.cookie() == ""


async def test_a_sign_in_has_ten_minutes(browser: Browser, clock: Clock) -> None:
    callback = await callback_of(browser)
    clock.ahead_s += 603
    answer = await browser.get(callback)
    assert (answer.status, answer.code) == (400, "login_unknown")


async def test_the_provider_may_refuse(browser: Browser, provider: OpenIdProvider) -> None:
    provider.refuse = "access_denied"
    answer = await browser.get("/console/page")
    assert (answer.status, answer.code) == (403, "provider_refused")
    assert "access_denied" in answer.text
    provider.refuse = "<script>alert(1)</script>"
    answer = await browser.get("/console/page")
    assert "script" not in answer.text


@pytest.mark.parametrize("change", ["&code=another", "&state=another", "&iss=https://a.example"])
async def test_answers_with_something_added_are_refused(browser: Browser, change: str) -> None:
    answer = await browser.get(await callback_of(browser) + change)
    assert answer.status in (400, 403)
    assert browser.cookie() == ""


async def test_an_answer_without_its_issuer_is_refused_where_there_has_to_be_one(
    browser: Browser, provider: OpenIdProvider
) -> None:
    provider.description["authorization_response_iss_parameter_supported"] = True
    callback = await callback_of(browser)
    assert (await browser.get(callback)).code == "token_refused"
    callback = await callback_of(browser) + f"&iss={provider.address}"
    assert (await browser.get(callback)).status == 200


@pytest.mark.parametrize("wanted", ELSEWHERE)
async def test_nobody_is_led_elsewhere(browser: Browser, wanted: str) -> None:
    http = browser.http
    async with http.get(
        f"{browser.url}/console/login", params={"next": wanted}, allow_redirects=False
    ) as response:
        callback = (await browser.get(response.headers["Location"], follow=False)).location
    assert (await browser.get(callback, follow=False)).location == "/console/"


@given(st.text() | st.from_regex(r"/console/[\\/.%a-f0-9@:?#&=]*", fullmatch=True))
def test_a_target_is_a_path_below_the_console_however_it_is_read(wanted: str) -> None:
    target = local_target(wanted)
    assert target in (wanted, "/console/")
    assert target.startswith("/console/")
    parts = urlsplit(target)
    assert not parts.netloc
    assert not parts.scheme
    assert not {".", "..", "%2e", "%2E"} & set(parts.path.split("/"))
    assert target.isascii()
    assert target.isprintable()
    assert "\\" not in target


@given(
    st.from_regex(
        r"/console/(cases|audits)/[a-z0-9-]{1,40}(\?[a-z]{1,9}=[a-z0-9]{1,9})?", fullmatch=True
    )
)
def test_pages_are_returned_to(wanted: str) -> None:
    assert local_target(wanted) == wanted
