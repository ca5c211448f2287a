from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pytest

from loragate_server.adapter.reference import Strength
from loragate_server.checkpoint.outcome import CheckOutcome, CheckSource
from loragate_server.checkpoint.result import Result
from loragate_server.checkpoint.statuses import OF_REFUSALS, status_of
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.request import GateRequest
from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.servers.comfyui import ComfyUI
from loragate_server.progress import Leash
from loragate_server.record.verdict import Verdict
from tests.server.checkpoint.conftest import MakePost, Post

AUTHZ = CheckSource("ext_authz", identity="the-proxy")
PROC = CheckSource("ext_proc", rewrites=True)


def load(*names: str, **more: Any) -> HttpRequest:
    document = {"loras": [{"lora": name} for name in names], **more}
    return HttpRequest("POST", "/load", body=json.dumps(document).encode())


async def ask(
    post: Post, request: HttpRequest, source: CheckSource = AUTHZ, **leash: Any
) -> CheckOutcome:
    for seed in range(2):
        post.house.reference(seed)
    return await post.checkpoint.check(request, source, Leash(**leash))


def denial(outcome: CheckOutcome) -> dict[str, Any]:
    assert outcome.denial is not None
    return json.loads(outcome.denial.body)


async def test_a_request_with_harmless_adapters_passes_and_tells_where_their_copies_are(
    post: MakePost,
) -> None:
    one = post(root=PurePath("/mnt/audited"))
    outcome = await ask(one, load("0.safetensors", "1.safetensors"))
    assert (outcome.result, outcome.verdict, outcome.mode) == (Result.ALLOW, "ALLOW", "ENFORCE")
    recorded = one.house.recorder.get(outcome.decision_id)
    assert recorded.caller.service == "ext_authz/plain"
    assert recorded.caller.identity == "the-proxy"
    digests = [each.sha256 for each in recorded.decision.evidence.adapters]
    assert outcome.audited == {
        n: f"/mnt/audited/{sha[:2]}/{sha}.safetensors" for n, sha in enumerate(digests)
    }
    assert outcome.body is None


async def test_a_forbidden_adapter_is_denied_with_concept_and_decision(post: MakePost) -> None:
    one = post()
    one.house.engine.score = 9.0
    outcome = await ask(one, load("0.safetensors"))
    assert (outcome.result, outcome.verdict) == (Result.DENY, "BLOCK")
    assert outcome.denial is not None
    assert outcome.denial.status == 403
    body = denial(outcome)
    assert body["code"] == "adapter_block"
    assert "cat" in body["detail"]
    assert body["decision_id"] == outcome.decision_id != ""
    assert outcome.audited == {}


@pytest.mark.parametrize(("passes", "result"), [(False, Result.DENY), (True, Result.ALLOW)])
async def test_review_is_denied_unless_configured(
    post: MakePost, passes: bool, result: Result
) -> None:
    one = post(on_review="allow" if passes else "deny")
    one.house.engine.score = 5.0
    outcome = await ask(one, load("0.safetensors"))
    assert (outcome.result, outcome.verdict) == (result, "REVIEW")


@pytest.mark.parametrize("source", [AUTHZ, PROC], ids=["ext_authz", "ext_proc"])
@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("Mystery", "add Mystery.weights to intercept.extractors.comfyui.settings.ignored_inputs"),
        ("Lora Loader", ""),
    ],
)
async def test_a_file_that_is_not_there_is_told_with_the_node_that_names_it(
    post: MakePost, source: CheckSource, kind: str, hint: str
) -> None:
    nodes = {
        "3": {"class_type": "LoraLoader", "inputs": {"lora_name": "0.safetensors"}},
        "7": {"class_type": kind, "inputs": {"weights": "nowhere.safetensors"}},
    }
    one = post(server=lambda root: ComfyUI(lora_folder=str(root)))
    request = HttpRequest("POST", "/prompt", body=json.dumps({"prompt": nodes}).encode())
    outcome = await ask(one, request, source)
    assert outcome.result == Result.NO_DECISION
    message = denial(outcome)["error"]["message"]
    assert "The adapter was not found." in message
    assert f"It is named at /prompt/7/inputs/weights ({kind})." in message
    assert hint in message
    assert bool(hint) == ("ignored_inputs" in message)


async def test_pilot_mode_lets_pass_and_says_so(post: MakePost) -> None:
    one = post()
    one.house.rule("version: 1\nmode: pilot\ndefaults:\n  block_score: 6\n  review_score: 4\n")
    one.house.engine.score = 9.0
    outcome = await ask(one, load("0.safetensors"))
    assert (outcome.result, outcome.verdict, outcome.mode) == (Result.ALLOW, "ALLOW", "PILOT")


async def test_asked_twice_it_audits_once_and_answers_the_same(post: MakePost) -> None:
    one = post()
    one.house.engine.hold()
    asked = [asyncio.ensure_future(ask(one, load("0.safetensors"))) for _ in range(2)]
    await one.house.engine.has_started()
    one.house.engine.let_go()
    first, second = await asyncio.gather(*asked)
    third = await ask(one, load("0.safetensors"))
    assert first == second == third
    assert one.house.engine.audits == 1
    assert one.house.recorded() == 1


async def test_a_dry_run_lets_everything_pass_and_tells_what_would_not_have(
    post: MakePost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = post(dry_run=True)
    one.house.engine.score = 9.0
    outcome = await ask(one, load("0.safetensors"), PROC)
    assert (outcome.result, outcome.verdict) == (Result.DRY_RUN_DENY, "BLOCK")
    assert outcome.allowed
    assert outcome.body is None
    assert one.house.recorder.get(outcome.decision_id).dry_run
    assert one.told.counts == {("plain", "dry_run_deny"): 1}
    assert f"verdict BLOCK, decision {outcome.decision_id}" in caplog.text
    assert (await ask(one, HttpRequest("POST", "/merge"))).result is Result.DRY_RUN_DENY


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (HttpRequest("POST", "/merge"), 403, "door_closed"),
        (HttpRequest("POST", "/load", body=b"{"), 400, "body_unreadable"),
        (HttpRequest("POST", "/load", body=b"{}", body_complete=False), 413, "body_incomplete"),
        (HttpRequest("POST", "/endless", body_complete=False), 403, "door_closed"),
        (HttpRequest("POST", "/load", body=b" " * 2000), 413, "body_incomplete"),
    ],
)
async def test_what_must_not_pass_is_refused(
    post: MakePost, request_: HttpRequest, status: int, code: str
) -> None:
    one = post(max_body_bytes=1024)
    outcome = await ask(one, request_)
    assert outcome.result is Result.REFUSED
    assert outcome.denial is not None
    assert (outcome.denial.status, denial(outcome)["code"]) == (status, code)
    assert one.house.engine.audits == 0


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("/etc/passwd", 403, "path_not_allowed"),
        ("no-such.safetensors", 400, "source_not_found"),
        ("https://civitai.example/1?token=canary-7f", 403, "source_not_enabled"),
    ],
)
async def test_an_adapter_that_cannot_be_read_is_denied(
    post: MakePost, name: str, status: int, code: str
) -> None:
    outcome = await ask(post(), load(name))
    assert outcome.result is Result.NO_DECISION
    assert outcome.denial is not None
    assert (outcome.denial.status, denial(outcome)["code"]) == (status, code)
    assert name not in str(outcome.denial)


async def test_a_deadline_that_passes_denies_and_says_when_to_ask_again(post: MakePost) -> None:
    one = post()
    one.house.engine.hold()
    outcome = await ask(one, load("0.safetensors"), deadline_monotonic_s=time.monotonic() + 0.3)
    one.house.engine.let_go()
    assert outcome.result is Result.NO_DECISION
    assert outcome.denial is not None
    assert outcome.denial.status == 503
    assert 5 <= int(dict(outcome.denial.headers)["retry-after"]) <= 8  # spread by chance


async def test_a_server_that_drains_denies_loads_and_passes_the_rest(post: MakePost) -> None:
    one = post()
    await one.house.gate.drain(1)
    outcome = await ask(one, load("0.safetensors"))
    assert (outcome.result, denial(outcome)["code"]) == (Result.NO_DECISION, "draining")
    assert (await ask(one, HttpRequest("GET", "/health"))).result is Result.ALLOW_NO_ADAPTER


async def test_a_fault_in_an_extractor_denies_and_logs_no_value(
    post: MakePost, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = await ask(post(), HttpRequest("POST", "/fault", body=b"canary-7f"))
    assert outcome.result is Result.NO_DECISION
    assert denial(outcome)["error"]["code"] == "check_failed"
    assert "KeyError" in caplog.text
    assert "canary-7f" not in caplog.text + str(outcome)


@pytest.mark.parametrize(
    ("path", "result", "allowed"),
    [
        ("/unlisted", Result.UNKNOWN_DENIED, False),
        ("/warn", Result.UNKNOWN_WARNED, True),
        ("/pass", Result.UNKNOWN_PASSED, True),
    ],
)
async def test_a_route_that_nobody_knows_is_counted_apart_and_told_by_its_words(
    post: MakePost, caplog: pytest.LogCaptureFixture, path: str, result: Result, allowed: bool
) -> None:
    caplog.set_level(logging.INFO)
    one = post()
    outcome = await ask(one, HttpRequest("POST", path))
    assert (outcome.result, outcome.allowed) == (result, allowed)
    assert one.told.counts == {("plain", result.value): 1}
    assert f"route POST {path}" in caplog.text


async def test_what_the_head_of_a_request_settles_is_told_once(post: MakePost) -> None:
    one = post()
    endless = one.checkpoint.check_head(HttpRequest("POST", "/endless"), PROC)
    assert endless is not None
    assert (endless.result, endless.allowed) == (Result.REFUSED, False)
    socket = one.checkpoint.check_head(HttpRequest("GET", "/socket"), PROC)
    assert socket is not None
    assert socket.result is Result.ALLOW_NO_ADAPTER
    assert one.checkpoint.check_head(load("0.safetensors"), PROC) is None
    nobody = CheckSource("ext_proc", extractor="sglnag")
    assert one.checkpoint.check_head(HttpRequest("GET", "/socket"), nobody) is None
    assert one.told.counts == {("plain", "refused"): 1, ("plain", "allow_no_adapter"): 1}


async def test_a_dry_run_lets_pass_what_the_head_of_a_request_would_refuse(
    post: MakePost,
) -> None:
    outcome = post(dry_run=True).checkpoint.check_head(HttpRequest("POST", "/endless"), PROC)
    assert outcome is not None
    assert (outcome.result, outcome.allowed) == (Result.DRY_RUN_DENY, True)


async def test_an_extractor_that_does_not_exist_denies(post: MakePost) -> None:
    one = post()
    outcome = await ask(one, HttpRequest("GET", "/"), CheckSource("http", extractor="sglnag"))
    assert (outcome.result, outcome.allowed) == (Result.REFUSED, False)
    assert one.told.counts == {("none", "refused"): 1}


async def test_the_proxy_chooses_the_extractor(post: MakePost) -> None:
    outcome = await ask(
        post(), HttpRequest("POST", "/merge"), CheckSource("http", extractor="other")
    )
    assert denial(outcome)["by"] == "other"


async def test_the_rewritten_body_names_the_audited_copies_and_keeps_them(post: MakePost) -> None:
    one = post()
    outcome = await ask(one, load("0.safetensors", "1.safetensors", seed=7), PROC)
    assert outcome.result is Result.ALLOW
    assert outcome.body is not None
    document = json.loads(outcome.body)
    assert document["seed"] == 7
    paths = [PurePath(each["lora"]) for each in document["loras"]]
    evidence = one.house.recorder.get(outcome.decision_id).decision.evidence
    assert [path.stem for path in paths] == [each.sha256 for each in evidence.adapters]


@pytest.mark.parametrize("source", [AUTHZ, PROC])
async def test_the_gate_hears_what_may_be_left_out_and_of_every_strength(
    post: MakePost, source: CheckSource
) -> None:
    one = post()
    asked: list[GateRequest] = []
    decide = one.house.gate.decide

    async def listen(request: GateRequest, leash: Leash) -> Verdict:
        asked.append(request)
        return await decide(request, leash)

    one.house.gate.decide = listen  # type: ignore[method-assign]
    loras = [
        {"lora": "0.safetensors", "strength": 0.5, "also": [-1.0]},
        {"lora": "1.safetensors", "optional": True},
    ]
    body = json.dumps({"loras": loras}).encode()
    outcome = await ask(one, HttpRequest("POST", "/load", body=body), source)
    assert outcome.result is Result.ALLOW
    ((first, second),) = [request.adapters for request in asked]
    assert first.strengths == (Strength(0.5, 0.5), Strength(-1.0, -1.0))
    assert (first.optional, second.optional) == (False, True)
    recorded = one.house.recorder.get(outcome.decision_id).decision.evidence.adapters
    assert [each.optional for each in recorded] == [False, True]


async def test_a_request_that_cannot_be_rewritten_is_denied(post: MakePost) -> None:
    outcome = await ask(post(), load("0.safetensors", pinned=True), PROC)
    assert (outcome.result, denial(outcome)["code"]) == (Result.REFUSED, "door_closed")


async def test_more_adapters_than_anybody_needs_are_not_even_read(post: MakePost) -> None:
    one = post()
    outcome = await ask(one, load(*["0.safetensors"] * 65), PROC)
    assert (outcome.result, denial(outcome)["code"]) == (Result.NO_DECISION, "request_invalid")
    assert list(one.intake.store_dir.glob("??/*")) == []


async def test_only_a_copy_that_is_about_to_be_loaded_is_kept(post: MakePost) -> None:
    one = post(keep_s=600.0)
    for source, kept in ((AUTHZ, False), (PROC, True)):
        await ask(one, load("0.safetensors"), source)
        [copy] = one.intake.store_dir.glob("??/*")
        assert (copy.stat().st_mtime > time.time() + 300) is kept


async def test_settings_beside_the_weights_are_not_left_behind(post: MakePost) -> None:
    one = post()
    folder = one.house.root / "peft"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(one.house.files(0))
    (folder / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 400}')
    outcome = await ask(one, load("peft"), PROC)
    assert outcome.result is Result.NO_DECISION
    assert denial(outcome)["code"] == "adapter_metadata_invalid"


async def test_a_request_without_adapter_takes_less_than_a_millisecond(post: MakePost) -> None:
    one = post()
    body = json.dumps({"prompt": "a boat", "image": "A" * 100_000}).encode()
    for _ in range(1000):
        await ask_bare(one, HttpRequest("POST", "/draw", body=body))
    seconds = sorted(one.told.seconds)
    print(f"median {seconds[500] * 1e6:.1f} us, 99th percentile {seconds[990] * 1e6:.1f} us")
    assert seconds[500] < 0.001


async def ask_bare(post: Post, request: HttpRequest) -> None:
    outcome = await post.checkpoint.check(request, AUTHZ, Leash())
    assert outcome.result is Result.ALLOW_NO_ADAPTER


def test_every_refusal_and_every_error_has_a_status() -> None:
    assert set(OF_REFUSALS) == set(RefusalCode)
    statuses = {
        reason: status_of(NoDecisionError(reason, "m", remedy="r")) for reason in ErrorReason
    }
    assert set(statuses.values()) == {400, 403, 413, 503}
    assert statuses[ErrorReason.QUEUE_FULL] == 503
    assert statuses[ErrorReason.NOT_SAFETENSORS] == 400
    assert statuses[ErrorReason.FILE_TOO_LARGE] == 413


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("named", ["", "plain"])
@pytest.mark.parametrize("path", ["/endless", "/unlisted", "/socket", "/warn", "/pass", "/load"])
async def test_what_is_said_by_the_head_is_what_the_whole_request_would_hear(
    post: MakePost, path: str, named: str, alone: bool
) -> None:
    one = post(alone=alone)
    source = CheckSource("ext_proc", extractor=named)
    request = HttpRequest("POST", path, body=json.dumps({"lora": "0.safetensors"}).encode())
    head = one.checkpoint.check_head(replace(request, body=b""), source)
    assert (head is None) == (path == "/load")
    if head is not None:
        assert head == await ask(one, request, source)
