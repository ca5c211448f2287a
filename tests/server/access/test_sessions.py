"""A session lasts its time, ends when it is ended, and cannot be made or changed by others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.access.sealing import Seal
from loragate_server.access.sessions import Spent
from tests.server.access.conftest import (
    SESSION_S,
    Browser,
    Clock,
    Console,
    MakeConsole,
    oidc,
)
from tests.server.access.openid import OpenIdProvider

SECRET = b"0123456789abcdefghijklmnopqrstuvwxyz"


async def test_a_session_ends_after_its_time_however_much_it_is_used(
    signed_in: Browser, clock: Clock
) -> None:
    for _ in range(4):
        clock.ahead_s += SESSION_S / 4 - 1
        assert (await signed_in.get("/console/page", follow=False)).status == 200
    clock.ahead_s += 10
    answer = await signed_in.get("/console/page", follow=False)
    assert answer.location == "/console/login?next=%2Fconsole%2Fpage"


async def test_every_sign_in_makes_another_session(signed_in: Browser) -> None:
    before = signed_in.cookie()
    await signed_in.get("/console/login?next=/console/page")
    assert signed_in.cookie() not in ("", before)
    signed_in.set_cookie(before)
    assert (await signed_in.get("/console/page", follow=False)).status == 303


async def test_altered_cookies_are_worth_nothing(signed_in: Browser) -> None:
    right = signed_in.cookie()
    middle = len(right) // 2
    changed = "A" if right[middle] != "A" else "B"
    wrong = [
        right[:middle] + changed + right[middle + 1 :],
        right[:-1],
        "A" + right,
        "",
        "gAAAAA",
        "a" * 200,
        "{}",
    ]
    for cookie in wrong:
        signed_in.set_cookie(cookie)
        assert (await signed_in.get("/console/page", follow=False)).status == 303, cookie
    signed_in.set_cookie(right)
    assert (await signed_in.get("/console/page", follow=False)).status == 200


async def test_a_cookie_of_a_sign_in_is_no_session(browser: Browser) -> None:
    await browser.get("/console/login", follow=False)
    attempt = next(one.value for one in browser.http.cookie_jar if "login" in one.key)
    browser.set_cookie(attempt)
    assert (await browser.get("/console/page", follow=False)).status == 303


async def test_replicas_with_the_same_secret_know_each_others_sessions(
    signed_in: Browser,
    make_console: MakeConsole,
    provider: OpenIdProvider,
    secrets_folder: Path,
) -> None:
    for secret, status in (("session", 200), ("other", 303)):
        (secrets_folder / "other").write_bytes(SECRET[::-1])
        replica = await make_console(
            oidc=oidc(provider, secrets_folder), session_secret_file=secrets_folder / secret
        )
        browser = await replica.new_browser()
        browser.set_cookie(signed_in.cookie())
        assert (await browser.get("/console/page", follow=False)).status == status


async def test_roles_are_those_of_the_present_settings(
    signed_in: Browser,
    make_console: MakeConsole,
    provider: OpenIdProvider,
    secrets_folder: Path,
) -> None:
    settings = oidc(provider, secrets_folder)
    for roles, status in (({"admin": ["reviewers"]}, 200), ({"admin": ["admins"]}, 403)):
        restarted = await make_console(oidc=settings, roles=roles)
        browser = await restarted.new_browser()
        browser.set_cookie(signed_in.cookie())
        answer = await browser.get("/console/page", follow=False)
        assert answer.status == status
    assert answer.code == "no_role"
    assert (await browser.get("/console/page", follow=False)).status == 303, "no way out"


async def test_signing_out_ends_the_session_for_kept_cookies_and_forms_as_well(
    signed_in: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cookie, form = signed_in.cookie(), await signed_in.fields()
    assert (await signed_in.post("/console/page", {**form, "what": "this"})).status == 200
    leaving = await signed_in.fields("/console/leave")
    answer = await signed_in.post("/console/logout", leaving)
    assert (answer.status, answer.location) == (303, "/console/signed-out")
    assert signed_in.cookie() == ""
    assert (await signed_in.get(answer.location.join((signed_in.url, "")))).code == "signed_out"
    replayed = await signed_in.post("/console/page", form)
    assert (replayed.status, replayed.code) == (401, "sign_in")
    signed_in.set_cookie(cookie)
    assert (await signed_in.post("/console/page", form)).status == 401
    assert (await signed_in.get("/console/page", follow=False)).status == 303
    assert "signed out" in caplog.messages


async def test_a_form_of_one_session_does_not_work_in_the_next(signed_in: Browser) -> None:
    form = await signed_in.fields()
    await signed_in.get("/console/login?next=/console/page")
    answer = await signed_in.post("/console/page", form)
    assert (answer.status, answer.code) == (403, "form_token")


async def test_signing_out_leads_on_to_the_provider_if_it_has_a_session(
    signed_in: Browser, provider: OpenIdProvider, clock: Clock
) -> None:
    provider.description["end_session_endpoint"] = f"{provider.address}/end?brand=a"
    clock.ahead_s += SESSION_S + 1  # the description is read again
    await signed_in.get("/console/page")
    leaving = await signed_in.fields("/console/leave")
    answer = await signed_in.post("/console/logout", leaving)
    assert (answer.status, answer.code) == (200, "signing_out")
    assert signed_in.cookie() == ""
    onward = answer.text.partition('<a href="')[2].partition('"')[0].replace("&amp;", "&")
    assert f'content="0; url={onward.replace("&", "&amp;")}"' in answer.text
    assert onward.startswith(f"{provider.address}/end?brand=a&client_id=loragate&")
    assert (await signed_in.get(onward)).url == f"{signed_in.url}/console/signed-out"


async def test_signing_out_needs_no_provider(
    signed_in: Browser, provider: OpenIdProvider, clock: Clock
) -> None:
    leaving = await signed_in.fields("/console/leave")
    await provider.close()
    clock.ahead_s += SESSION_S - 60  # the clock goes on meanwhile
    assert (await signed_in.post("/console/logout", leaving)).status == 303
    assert signed_in.cookie() == ""


async def test_signing_out_takes_a_form(signed_in: Browser) -> None:
    assert (await signed_in.get("/console/logout")).status == 405
    page_form = await signed_in.fields()
    assert (await signed_in.post("/console/logout", page_form)).code == "form_token"
    assert (await signed_in.get("/console/page", follow=False)).status == 200


async def test_who_is_not_signed_in_gets_no_page_but_a_way_in(console: Console) -> None:
    browser = await console.new_browser()
    for path in (
        "/console/",
        "/console/page?a=1",
        "/console/nowhere",
        "/console/static%2f..%2fpage",
    ):
        assert (await browser.get(path, follow=False)).status == 303
    for request in ({"Sec-Fetch-Dest": "image"}, {"Sec-Fetch-Dest": "iframe"}):
        answer = await browser.get("/console/page", follow=False, **request)
        assert (answer.status, answer.code) == (401, "sign_in")


record = st.dictionaries(st.text(max_size=20), st.text(max_size=50) | st.integers(), max_size=5)


@given(record, st.data())
def test_a_sealed_record_opens_unchanged_and_only_for_its_purpose_and_time(
    sealed_record: dict[str, object], data: st.DataObject
) -> None:
    now_s = 1_800_000_000.0
    seal = Seal(SECRET, "test", lambda: now_s)
    sealed = seal.close(sealed_record)
    assert seal.open(sealed, 60) == sealed_record
    assert Seal(SECRET, "other", lambda: now_s).open(sealed, 60) is None
    assert Seal(SECRET, "test", lambda: now_s + 61).open(sealed, 60) is None
    at = data.draw(st.integers(0, len(sealed.rstrip("=")) - 2))
    other = data.draw(
        st.sampled_from("ABCDEFGHabcdefgh0123456789-_").filter(lambda c: c != sealed[at])
    )
    assert seal.open(sealed[:at] + other + sealed[at + 1 :], 60) is None


@given(
    st.lists(st.tuples(st.text(max_size=3), st.integers(1, 50), st.integers(0, 20)), max_size=40)
)
def test_what_is_spent_stays_so_until_it_would_have_ended(
    steps: list[tuple[str, int, int]],
) -> None:
    clock = Clock()
    spent, ends = Spent(lambda: clock.ahead_s), dict[str, float]()
    for one, life_s, wait_s in steps:
        clock.ahead_s += wait_s
        fresh = spent.add(one, clock.ahead_s + life_s)
        if not fresh:
            assert one in ends
        if ends.get(one, -1) >= clock.ahead_s:
            assert not fresh
        else:
            ends[one] = clock.ahead_s + life_s
        assert one in spent
