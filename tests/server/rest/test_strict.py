"""What could be read in two ways is refused, and by its name."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import concept_pb2
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.rest.query import from_query
from loragate_server.rest.strict import make_message, read_message
from loragate_server.rpc.errors import to_status


def refused(text: str | bytes, kind: Any = wire.AuditRequest) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        read_message(text if isinstance(text, bytes) else text.encode(), kind)
    assert caught.value.reason is ErrorReason.REQUEST_INVALID
    return caught.value


def adapter(**fields: Any) -> str:
    return json.dumps({"adapters": [fields]})


def test_both_spellings_of_a_name_are_read() -> None:
    for text in ('{"baseModel": "x", "dryRun": true}', '{"base_model": "x", "dry_run": true}'):
        assert read_message(text.encode(), wire.AuditRequest) == wire.AuditRequest(
            base_model="x", dry_run=True
        )


def test_bytes_are_read_in_both_alphabets_of_base64() -> None:
    data = bytes(range(256))
    urls = base64.urlsafe_b64encode(data)
    for spelt in (base64.b64encode(data), urls, urls.rstrip(b"=")):
        message = read_message(adapter(inline_bytes=spelt.decode()).encode(), wire.AuditRequest)
        assert message.adapters[0].inline_bytes == data


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"adaptors": []}', "adaptors"),
        (adapter(pth="x"), "adapters.pth"),
        ('{"base_model": "a", "base_model": "b"}', "base_model"),
        ('{"base_model": "a", "baseModel": "a"}', "baseModel"),
        (adapter(path="x", uri="y"), "adapters.uri"),
        (adapter(path=1), "adapters.path"),
        (adapter(path=None), "adapters.path"),
        (adapter(path="\ud800"), "adapters.path"),
        (adapter(denoiser_strength="0.5"), "adapters.denoiser_strength"),
        (adapter(denoiser_strength=True), "adapters.denoiser_strength"),
        (adapter(inline_bytes="a!!a"), "adapters.inline_bytes"),
        (adapter(inline_bytes="aaaaa"), "adapters.inline_bytes"),
        (adapter(inline_bytes="aa==aa=="), "adapters.inline_bytes"),
        (adapter(inline_bytes="aaa ="), "adapters.inline_bytes"),
        (adapter(inline_bytes="ａａａａ"), "adapters.inline_bytes"),
        (adapter(inline_bytes=["aaaa"]), "adapters.inline_bytes"),
        (adapter(kind=1), "adapters.kind"),
        (adapter(kind="ADAPTER_KIND_MODEL"), "adapters.kind"),
        ('{"dry_run": 1}', "dry_run"),
        ('{"dry_run": "true"}', "dry_run"),
        ('{"adapters": {}}', "adapters"),
        ('{"adapters": [null]}', "adapters"),
        ('{"caller": []}', "caller"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(text: str, field: str) -> None:
    assert refused(text).metadata["field"] == field


@pytest.mark.parametrize(
    "number",
    [
        "0.1000000000000000055511",
        "9007199254740993",
        "1e300",
        "1e999",
        "1e-400",
        "NaN",
        "1e9999999",
    ],
)
def test_a_number_that_would_lose_something_is_refused(number: str) -> None:
    said = refused(f'{{"adapters": [{{"denoiser_strength": {number}}}]}}').message
    assert said.startswith(number)


@pytest.mark.parametrize("number", ["0.1", "-1.5", "0", "1e-3", "0.10000000000000001"])
def test_a_number_that_a_double_keeps_is_read(number: str) -> None:
    text = f'{{"adapters": [{{"denoiser_strength": {number}}}]}}'
    message = read_message(text.encode(), wire.AuditRequest)
    assert message.adapters[0].denoiser_strength == float(number)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"{} {}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"adapters": ' + b"[" * 100_000,
        b'{"a": ' * 50 + b"1" + b"}" * 50,
    ],
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    refused(text)


def test_a_list_may_not_be_longer_than_any_needs_to_be() -> None:
    refused('{"adapters": [' + "{}," * 100_000 + "{}]}")


def test_a_fraction_is_no_page_size() -> None:
    assert refused('{"page_size": 1.5}', wire.ListAuditsRequest).metadata["field"] == "page_size"
    assert refused('{"page_size": 2147483648}', wire.ListAuditsRequest)
    assert read_message(b'{"page_size": 2.0}', wire.ListAuditsRequest).page_size == 2


def query(text: str, kind: Any = wire.UploadHeader) -> Any:
    parameters = [tuple(one.split("=", 1)) for one in text.split("&")]
    return make_message(from_query(kind.DESCRIPTOR, parameters, {}), kind)  # type: ignore[arg-type]


def test_a_query_says_what_json_says() -> None:
    found = query(
        "sha256=ab&declared_size_bytes=18446744073709551615&adapter.denoiser_strength=0.5"
        "&caller.service=me&dry_run=true&concept_ids=a&concept_ids=b"
    )
    assert found == wire.UploadHeader(
        sha256="ab",
        declared_size_bytes=2**64 - 1,
        adapter=wire.AdapterReference(denoiser_strength=0.5),
        caller=wire.CallerContext(service="me"),
        dry_run=True,
        concept_ids=["a", "b"],
    )


def test_a_moment_is_a_text_with_its_offset() -> None:
    at_two = wire.ListAuditsRequest(decided_since=Timestamp(seconds=1_764_424_800))
    for text in ("2025-11-29T14:00:00Z", "2025-11-29T15:00:00%2B01:00".replace("%2B", "+")):
        assert query(f"decided_since={text}", wire.ListAuditsRequest) == at_two
        assert read_message(f'{{"decided_since": "{text}"}}'.encode(), wire.ListAuditsRequest)
    for wrong in ('"2025-11-29"', '"yesterday"', "17", "{}", '{"seconds": 17}', "null"):
        text = f'{{"decided_since": {wrong}}}'
        assert refused(text, wire.ListAuditsRequest).metadata["field"] == "decided_since", wrong
    with pytest.raises(NoDecisionError):
        query("decided_since.seconds=17", wire.ListAuditsRequest)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("sha265=ab", "sha265"),
        ("sha256=a&sha256=b", "sha256"),
        ("dry_run=yes", "dry_run"),
        ("adapter=x", "adapter"),
        ("caller.nobody=x", "caller.nobody"),
        ("sha256.x=1", "sha256.x"),
        ("declared_size_bytes=1_000", "declared_size_bytes"),
        ("declared_size_bytes=１", "declared_size_bytes"),
        ("adapter.denoiser_strength=1e999", "adapter.denoiser_strength"),
        ("adapter.denoiser_strength=", "adapter.denoiser_strength"),
    ],
)
def test_a_parameter_that_is_none_is_refused_by_its_name(text: str, field: str) -> None:
    with pytest.raises(NoDecisionError) as caught:
        query(text)
    assert caught.value.metadata["field"] == field


def test_what_stands_in_the_path_does_not_stand_in_the_query() -> None:
    kind = concept_pb2.GetConceptRequest.DESCRIPTOR
    with pytest.raises(NoDecisionError):
        from_query(kind, [("concept_id", "a")], {"concept_id": "b"})


@pytest.mark.parametrize(
    "text",
    [
        r'{"\ud800": 1}',
        r'{"\ud800": 1, "\ud800": 2}',
        r'{"adapters": [{"\ud800": 1}]}',
        r'{"adapters": [{"kind": "\ud800"}]}',
    ],
)
def test_half_a_letter_in_a_name_is_refused_in_words_that_can_be_sent(text: str) -> None:
    to_status(refused(text)).SerializeToString()


def test_what_was_read_is_not_kept_by_its_refusal() -> None:
    error = refused("[" + "{}," * 1000 + "{}]")
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert "make_message" not in frames


def test_a_text_of_too_many_parts_is_refused_unread() -> None:
    assert "parts" in refused(b"[" + b"{}," * 60_000 + b"{}]").message


def test_a_parameter_nested_too_deep_is_refused() -> None:
    with pytest.raises(NoDecisionError):
        from_query(wire.ListAuditsRequest.DESCRIPTOR, [("page_size", "[" * 7000)], {})
