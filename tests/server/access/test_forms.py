"""Forms are obeyed only when a page of the console sent them, in the same session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.access.forms import FormTokens
from tests.server.access.conftest import SESSION_S, Answer, Browser

FORM = "application/x-www-form-urlencoded"


async def test_a_form_of_a_page_is_obeyed(signed_in: Browser) -> None:
    form = {**await signed_in.fields(), "what": "this 漢字"}
    answer = await signed_in.post("/console/page", form)
    assert (answer.status, answer.text) == (200, "ada@example.com did this 漢字")


async def test_browsers_that_send_no_origin_show_the_page_that_they_come_from(
    signed_in: Browser,
) -> None:
    form = await signed_in.fields()
    referer = {"Referer": f"{signed_in.url}/console/page"}
    assert (await signed_in.post("/console/page", form, referer)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "HOST.evil.example.com"},
        {"Origin": "HOST", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "HOST", "Sec-Fetch-Site": "same-site"},
        {"Origin": "HOST", "Sec-Fetch-Site": "none"},
        {"Referer": "https://evil.example.com/console/page"},
        {"Referer": "https://evil.example.com/?HOST"},
        {"Origin": "https://evil.example.com", "Referer": "HOST/console/page"},
        {"Origin": "", "Referer": "HOST/console/page"},
    ],
    ids=str,
)
async def test_forms_of_other_sites_are_refused(
    signed_in: Browser, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    form = await signed_in.fields()
    sent = {name: value.replace("HOST", signed_in.url) for name, value in headers.items()}
    answer = await signed_in.post("/console/page", form, sent)
    assert (answer.status, answer.code) == (403, "cross_site")
    assert "access refused: cross_site" in caplog.messages


async def test_forms_without_the_right_token_are_refused(
    signed_in: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    form = await signed_in.fields()
    made, _, code = form["csrf"].partition(".")
    of_another_page = await signed_in.fields("/console/cases/1")
    garbled = ["", "x", code, f"{made}.", f".{code}", f"９.{code}", f"{made}.é"]
    altered = [f"{int(made) + 1}.{code}", f"{made}.{code[:-1]}", of_another_page["csrf"]]
    for token in garbled + altered:
        answer = await signed_in.post("/console/page", {"csrf": token})
        assert (answer.status, answer.code) == (403, "form_token"), token
    assert (await signed_in.post("/console/page", {"what": "this"})).code == "form_token"
    assert {vars(record)["user"] for record in caplog.records} == {"ada@example.com"}
    twice = f"csrf={form['csrf']}&csrf={form['csrf']}".encode()
    assert (await _raw(signed_in, twice, FORM)).code == "form_token"
    assert "did this" not in (await signed_in.post("/console/page", {"what": "this"})).text


async def test_only_plain_forms_of_moderate_length_are_read(signed_in: Browser) -> None:
    form = await signed_in.fields()
    plain = f"csrf={form['csrf']}&what=".encode()
    assert (await _raw(signed_in, plain + b"a" * 60_000, FORM)).status == 200
    assert (await _raw(signed_in, plain + b"a" * 70_000, FORM)).code == "form_too_long"
    assert (await _raw(signed_in, plain, "text/plain")).code == "not_a_form"
    assert (await _raw(signed_in, plain, "application/json")).code == "not_a_form"
    assert (await _raw(signed_in, plain, f"{FORM}; charset=rot13")).code == "not_a_form"
    assert (await _raw(signed_in, plain + b"%ff\xff", FORM)).code in ("not_a_form", "")
    squeezed = await _raw(signed_in, plain, FORM, {"Content-Encoding": "gzip"})
    assert squeezed.code in ("not_a_form", "")
    assert squeezed.status >= 400


async def test_a_form_of_unknown_length_is_refused(signed_in: Browser) -> None:
    form = await signed_in.fields()

    async def pieces() -> AsyncIterator[bytes]:
        yield f"csrf={form['csrf']}".encode()

    answer = await _raw(signed_in, pieces(), FORM)
    assert (answer.status, answer.code) == (413, "form_too_long")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_every_method_that_changes_something_is_looked_at(
    signed_in: Browser, method: str
) -> None:
    answer = await signed_in._ask(
        method,
        f"{signed_in.url}/console/page",
        follow=False,
        headers={"Origin": "https://a.example"},
    )
    assert answer.status in (400, 403)


async def _raw(
    browser: Browser, body: Any, content_type: str, more: dict[str, str] | None = None
) -> Answer:
    headers = {"Origin": browser.url, "Content-Type": content_type, **(more or {})}
    return await browser.post("/console/page", body, headers)


words = st.text(max_size=30)


@given(words, words, words, words)
def test_a_token_fits_one_person_and_one_place(
    person: str, path: str, other_person: str, other_path: str
) -> None:
    now_s = 1_800_000_000.0
    tokens = FormTokens(b"0123456789abcdefghijklmnopqrstuvwxyz", SESSION_S, lambda: now_s)
    token = tokens.make(person, path)
    assert tokens.fits(token, person, path)
    same = (person, path) == (other_person, other_path)
    assert tokens.fits(token, other_person, other_path) == same
    later = FormTokens(
        b"0123456789abcdefghijklmnopqrstuvwxyz", SESSION_S, lambda: now_s + SESSION_S + 1
    )
    assert not later.fits(token, person, path)
    assert not FormTokens(b"another secret, as long as that one", SESSION_S, lambda: now_s).fits(
        token, person, path
    )
