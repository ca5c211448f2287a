"""Urlencoded forms: no field is seen by a server and not by the gate."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.reading.bodies import BodyLimits
from loragate_server.intercept.reading.forms import read_form
from tests.server.intercept.bodies import post

FORM = "application/x-www-form-urlencoded"
LIMITS = BodyLimits(10_000, 20)


def as_older_servers(body: str) -> list[tuple[str, str]]:
    """As python-multipart before 0.0.29 reads a form: `;` ends a field, too."""
    parts = (one.partition("=") for one in re.split("[&;]", body) if one)
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["a", "lora", "=", "&", ";", "%3B", "%26", "+", "b=1"])).map("".join)
)
def test_every_server_reads_the_fields_that_the_gate_reads(body: str) -> None:
    try:
        form = read_form(post("/x", body.encode(), content_type=FORM), LIMITS)
    except RefusedRequestError:
        return
    assert [(one.name, one.text) for one in form] == as_older_servers(body)


def test_a_plain_semicolon_is_refused_and_an_encoded_one_is_none() -> None:
    body = b"prompt=a&url=x&user=x;lora=%7B%22path%22%3A%22evil%22%7D"
    with pytest.raises(RefusedRequestError) as caught:
        read_form(post("/x", body, content_type=FORM), LIMITS)
    assert caught.value.code == RefusalCode.BODY_AMBIGUOUS
    assert "The form holds a plain semicolon. Write it as %3B." in str(caught.value)
    (one,) = read_form(post("/x", b"prompt=a%3B+b", content_type=FORM), LIMITS)
    assert one.text == "a; b"
