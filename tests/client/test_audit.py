"""What goes to the service and what comes back, the same for both clients."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loragate import (
    AdapterKind,
    AdapterReference,
    AuditError,
    AuditResult,
    Concept,
    Internal,
    InvalidAdapter,
    InvalidRequest,
    NotFound,
    Progress,
    Severity,
    Verdict,
)
from loragate._wire import CHUNK_BYTES
from loragate.reference import ASK_FIRST_BYTES, INLINE_LIMIT_BYTES
from loragate.v1 import audit_pb2

SMALL = b"small adapter"
LARGE = bytes(range(256)) * (INLINE_LIMIT_BYTES // 256 + 4096)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_small_bytes_go_inline_and_are_bound_to_their_digest(client: Any, fake: Any) -> None:
    result = await client.audit(SMALL, strength=0.8, text_encoder_strength=0.0, base_model="b")
    request = fake.calls[0].request
    assert [call.method for call in fake.calls] == ["Audit"]
    assert request.adapters[0].inline_bytes == SMALL
    assert request.adapters[0].expected_sha256 == sha256(SMALL)
    assert request.adapters[0].denoiser_strength == 0.8
    assert request.adapters[0].HasField("text_encoder_strength")
    assert request.base_model == "b"
    assert request.caller.request_id
    assert result.allowed
    assert result.decided
    assert result.audited_bytes == SMALL
    assert result.adapters[0].sha256 == sha256(SMALL)


async def test_a_scripted_block_arrives_with_its_finding(client: Any, fake: Any) -> None:
    fake.verdicts[sha256(SMALL)] = Verdict.BLOCK
    result = await client.audit(SMALL)
    assert result.verdict is Verdict.BLOCK
    assert not result.allowed
    assert result.top_finding.concept_id == "forbidden-concept"
    assert result.top_finding.severity is Severity.HIGH
    assert result.reasons[0].code == "concept_learned"
    assert result.stage_times_s == {"response": 0.005}
    assert result.decided_at.tzinfo is not None
    assert not result.has_expired()


async def test_large_bytes_go_by_upload_in_chunks(client: Any, fake: Any) -> None:
    result = await client.audit(LARGE, strength=0.5, dry_run=True, concept_ids=["a"])
    asked, call = fake.calls
    assert asked.method == "Audit"
    assert asked.request.adapters[0].stored_sha256 == sha256(LARGE)
    assert asked.request.caller.request_id == call.request.caller.request_id
    assert call.method == "AuditUpload"
    assert call.data == LARGE
    assert call.request.declared_size_bytes == len(LARGE)
    assert call.request.sha256 == sha256(LARGE)
    assert call.request.adapter.denoiser_strength == 0.5
    assert call.request.adapter.WhichOneof("source") is None
    assert call.request.dry_run
    assert list(call.request.concept_ids) == ["a"]
    assert result.audited_bytes == LARGE
    assert result.dry_run
    assert 256 * 1024 <= CHUNK_BYTES <= 1024 * 1024


@pytest.mark.parametrize("size", [ASK_FIRST_BYTES, len(LARGE)])
async def test_bytes_that_the_server_holds_are_not_sent_again(
    client: Any, fake: Any, size: int
) -> None:
    data = LARGE[:size]
    first = await client.audit(data)
    sent = len(fake.calls)
    second = await client.audit(data, strength=0.3)
    assert sent == 2
    assert [call.method for call in fake.calls[sent:]] == ["Audit"]
    reference = fake.calls[-1].request.adapters[0]
    assert reference.WhichOneof("source") == "stored_sha256"
    assert reference.denoiser_strength == 0.3
    assert first.adapters[0].sha256 == second.adapters[0].sha256 == sha256(data)
    assert second.audited_bytes == data


async def test_several_that_the_server_holds_are_asked_about_by_their_digests(
    client: Any, fake: Any
) -> None:
    held = [AdapterReference(data=LARGE, strength=0.5), AdapterReference(data=SMALL)]
    with pytest.raises(InvalidRequest) as caught:
        await client.call("audit_stored", held)
    assert caught.value.reason == "ADAPTER_NOT_STORED"
    for one in held:
        await client.audit(one)
    result = await client.call("audit_stored", held, base_model="b")
    sources = [one.WhichOneof("source") for one in fake.calls[-1].request.adapters]
    assert sources == ["stored_sha256"] * 2
    assert [one.sha256 for one in result.adapters] == [sha256(LARGE), sha256(SMALL)]
    with pytest.raises(ValueError, match="use audit for places"):
        await client.call("audit_stored", [AdapterReference(path="a")])


async def test_bytes_below_the_limit_are_sent_at_once(client: Any, fake: Any) -> None:
    await client.audit(LARGE[: ASK_FIRST_BYTES - 1])
    assert [call.request.adapters[0].WhichOneof("source") for call in fake.calls] == [
        "inline_bytes"
    ]


async def test_a_local_file_is_read_and_its_bytes_come_back(
    client: Any, fake: Any, tmp_path: Path
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(LARGE)
    result = await client.call("audit_file", path)
    assert result.audited_bytes == LARGE
    assert fake.calls[-1].request.file_name == "style.safetensors"


async def test_a_local_file_that_is_not_there_is_an_os_error(client: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client.call("audit_file", tmp_path / "nothing")


async def test_a_device_is_not_read(client: Any) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        await client.call("audit_file", "/dev/zero", timeout=5)


async def test_text_is_a_path_or_a_uri_on_the_server(client: Any, fake: Any) -> None:
    await client.audit("style.safetensors")
    await client.audit(Path("/models/style.safetensors"))
    await client.audit("hf://owner/name")
    sources = [call.request.adapters[0] for call in fake.calls]
    assert [(s.path, s.uri) for s in sources] == [
        ("style.safetensors", ""),
        ("/models/style.safetensors", ""),
        ("", "hf://owner/name"),
    ]


async def test_several_adapters_are_one_question(client: Any, fake: Any) -> None:
    fake.verdicts["second"] = Verdict.REVIEW
    own = AdapterReference(path="second", strength=0.0, weight_name="w", revision="r")
    result = await client.audit([SMALL, own], strength=0.7)
    first, second = fake.calls[0].request.adapters
    assert (first.denoiser_strength, second.denoiser_strength) == (0.7, 0.0)
    assert (second.weight_name, second.revision) == ("w", "r")
    assert result.verdict is Verdict.REVIEW
    assert result.audited_bytes is None
    assert len(result.adapters) == len(result.coverage) == 2


async def test_an_embedding_says_what_it_is_and_takes_no_strength(client: Any, fake: Any) -> None:
    word = AdapterReference(data=b"word", kind=AdapterKind.EMBEDDING)
    result = await client.audit([SMALL, word], strength=0.7)
    lora, embedding = fake.calls[0].request.adapters
    assert lora.kind == audit_pb2.ADAPTER_KIND_UNSPECIFIED
    assert embedding.kind == audit_pb2.ADAPTER_KIND_EMBEDDING
    assert not embedding.HasField("denoiser_strength")
    assert [one.kind for one in result.adapters] == [AdapterKind.LORA, AdapterKind.EMBEDDING]


async def test_an_older_server_that_knows_no_kinds_is_not_believed_about_an_embedding(
    client: Any, fake: Any
) -> None:
    fake.falsify = lambda verdict: [one.ClearField("kind") for one in verdict.adapters]
    assert (await client.audit(SMALL)).allowed
    with pytest.raises(Internal, match="judged as LORA, asked about was EMBEDDING"):
        await client.audit(AdapterReference(data=b"word", kind=AdapterKind.EMBEDDING))


@pytest.mark.parametrize(
    ("adapters", "options", "says"),
    [
        ([], {}, "no adapter"),
        ([SMALL, LARGE], {}, "at most"),
        ([SMALL, SMALL], {"expected_sha256": "a" * 64}, "one adapter"),
        (SMALL, {"timeout": 0}, "positive"),
        (SMALL, {"timeout": float("nan")}, "positive"),
    ],
)
async def test_arguments_that_contradict_each_other_are_value_errors(
    client: Any, fake: Any, adapters: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        await client.audit(adapters, **options)
    assert fake.calls == []


async def test_an_option_that_does_not_exist_is_a_type_error(client: Any) -> None:
    with pytest.raises(TypeError, match="stregth"):
        await client.audit(SMALL, stregth=0.5)
    with pytest.raises(TypeError, match="not int"):
        await client.audit(7)


async def test_other_bytes_than_expected_are_refused(client: Any, fake: Any) -> None:
    fake.fail_next("SHA256_MISMATCH")
    with pytest.raises(InvalidAdapter) as caught:
        await client.audit(SMALL, expected_sha256="A" * 64)
    assert fake.calls[0].request.adapters[0].expected_sha256 == "a" * 64
    assert caught.value.reason == "SHA256_MISMATCH"


async def test_an_answer_about_other_bytes_is_not_believed(
    client: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loragate.testing import fake_server

    real = fake_server.audited

    def forged(*args: Any) -> Any:
        adapter = real(*args)
        adapter.sha256 = "f" * 64
        return adapter

    monkeypatch.setattr(fake_server, "audited", forged)
    with pytest.raises(Internal, match="f" * 64):
        await client.audit(SMALL)
    with pytest.raises(Internal, match="f" * 64):
        await client.collect("watch", SMALL)


async def test_watch_ends_with_the_result(client: Any) -> None:
    *progress, result = await client.collect("watch", SMALL)
    assert all(isinstance(item, Progress) for item in progress)
    assert progress[0].stage == "queued"
    assert isinstance(result, AuditResult)
    assert result.audited_bytes == SMALL


async def test_watch_does_not_take_more_than_a_message(client: Any) -> None:
    with pytest.raises(ValueError, match="at most"):
        await client.collect("watch", LARGE)


async def test_a_decision_can_be_had_again(client: Any) -> None:
    result = await client.audit(SMALL)
    assert await client.call("get", result.decision_id) == result
    with pytest.raises(NotFound) as caught:
        await client.call("get", "unknown")
    assert caught.value.reason == "DECISION_UNKNOWN"


async def test_lists_follow_pages_and_filters(client: Any, fake: Any) -> None:
    fake.verdicts[sha256(b"4")] = Verdict.BLOCK
    made = [(await client.audit(str(i).encode())).decision_id for i in range(7)]
    fake.calls.clear()
    listed = await client.collect("list", page_size=3)
    assert [result.decision_id for result in listed] == made[::-1]
    assert len(fake.calls) == 3
    blocked = await client.collect("list", verdict=Verdict.BLOCK)
    assert [result.decision_id for result in blocked] == [made[4]]
    of_one = await client.collect("list", adapter_sha256=sha256(b"2").upper())
    assert [result.decision_id for result in of_one] == [made[2]]
    assert listed[0].base_model
    assert not await client.collect("list", base_model=f"not {listed[0].base_model}")
    assert len(await client.collect("list", base_model=listed[0].base_model)) == 7
    begun = min(result.decided_at for result in listed)
    assert len(await client.collect("list", since=begun)) == 7
    assert not await client.collect("list", before=begun)


@pytest.mark.parametrize(
    "asked",
    [
        {"base_model": "another"},
        {"since": datetime(2999, 1, 1, tzinfo=UTC)},
        {"before": datetime(1999, 1, 1, tzinfo=UTC)},
    ],
)
async def test_a_service_that_knows_no_such_filter_is_not_believed(
    client: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    await client.audit(SMALL)
    ask = audit_pb2.ListAuditsRequest
    monkeypatch.setattr("loragate._wire.list_request", lambda token, _: ask(page_token=token))
    with pytest.raises(AuditError, match="was not asked for"):
        await client.collect("list", **asked)


async def test_a_moment_without_a_timezone_is_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="has no timezone"):
        await client.collect("list", since=datetime(2026, 1, 1))


async def test_concepts_come_and_go(client: Any, fake: Any) -> None:
    concept = Concept("acme", "Acme", "brand", Severity.MEDIUM, prompts=("acme logo",))
    stored = await client.call("concepts.create", concept, (b"one", b"two"))
    assert stored.picture_count == 2
    assert fake.calls[0].data == b"onetwo"
    assert await client.call("concepts.get", "acme") == stored
    assert await client.collect("concepts.list", page_size=1) == [stored]
    assert len(await client.call("concepts.delete", "acme")) == 64
    with pytest.raises(NotFound) as caught:
        await client.call("concepts.get", "acme")
    assert caught.value.reason == "CONCEPT_UNKNOWN"


async def test_a_closed_client_says_so(client: Any) -> None:
    await client.audit(SMALL)
    await client.call("close")
    await client.call("close")
    with pytest.raises(RuntimeError, match="closed"):
        await client.audit(SMALL)
