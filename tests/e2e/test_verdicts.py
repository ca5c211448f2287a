"""What a user does: audit the shipped adapters through the SDK and act on the answers."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from loragate import AdapterBlocked, AuditClient, AuditResult, ListOptions, Progress, Verdict
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.testing import ServerProcess

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
FILES = sorted(path.name for path in ADAPTERS.glob("*.safetensors"))
LEARNED = [name for name in FILES if name.startswith("learned-")]
HARMLESS = [name for name in FILES if name.startswith("harmless-")]
SOONEST = "harmless-watermelon.safetensors"
"""The one that is audited soonest, where any harmless one will do."""


def metric(server: ServerProcess, name: str) -> float:
    """The sum of a metric's series."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0] == name)


@pytest.mark.parametrize("name", LEARNED)
def test_an_adapter_that_learned_a_forbidden_concept_is_blocked(
    client: AuditClient, name: str
) -> None:
    result = client.audit_file(ADAPTERS / name)
    concept = name.removeprefix("learned-").removesuffix(".safetensors")
    assert result.verdict is Verdict.BLOCK
    assert result.findings[0].concept_id == concept
    assert result.findings[0].score > result.findings[1].score + 1
    assert result.reasons[0].code == "concept_learned"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_adapter_is_allowed(client: AuditClient, name: str) -> None:
    result = client.audit_file(ADAPTERS / name)
    assert result.verdict is Verdict.ALLOW
    assert result.allowed


def test_an_answer_says_everything_that_it_is_bound_to(
    client: AuditClient, root: Path, server: ServerProcess
) -> None:
    path = root / SOONEST
    result = client.audit(str(path))
    assert result.adapters[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.coverage[0].mapped_tensors == result.coverage[0].weight_tensors > 0
    for digest in (result.digests.base_model, result.digests.library, result.digests.policy):
        assert len(digest) == 64
    assert result.base_model == "emoji-tiny"
    assert result.kernel_backend == "reference"
    assert len(result.findings) == 16
    assert result.expires_at > result.decided_at
    log = (server.log.parent / "decisions.jsonl").read_text().splitlines()
    assert any(result.decision_id in line for line in log)
    assert all(json.loads(line) for line in log)


def test_the_same_question_is_answered_from_the_cache(
    client: AuditClient, server: ServerProcess
) -> None:
    first = client.audit_file(ADAPTERS / SOONEST, strength=0.9)
    again = client.audit_file(ADAPTERS / SOONEST, strength=0.9)
    assert again.cached
    assert again.decision_id == first.decision_id
    other = client.audit_file(ADAPTERS / SOONEST, strength=0.5)
    assert not other.cached
    assert metric(server, "loragate_cache_requests_total") > 0


def test_a_decision_can_be_looked_up_and_listed(client: AuditClient) -> None:
    result = client.audit_file(ADAPTERS / LEARNED[0])
    assert client.get(result.decision_id).verdict is result.verdict
    listed = list(client.list(adapter_sha256=result.adapters[0].sha256, page_size=1))
    assert result.decision_id in {each.decision_id for each in listed}
    assert all(each.verdict is Verdict.ALLOW for each in client.list(verdict=Verdict.ALLOW))


def test_a_list_is_of_one_service_one_base_model_and_one_span_of_time(
    server: ServerProcess, client: AuditClient
) -> None:
    with AuditClient(
        server.grpc, on_unavailable="raise", timeout=120, service="gallery"
    ) as gallery:
        result = gallery.audit_file(ADAPTERS / SOONEST, strength=0.31)
    moment = result.decided_at
    assert moment is not None
    since: list[ListOptions] = [{}, {"since": moment}, {"before": moment + timedelta(hours=1)}]
    for more in since:
        [found] = client.list(service="gallery", base_model=result.base_model, **more)
        assert found.decision_id == result.decision_id
    assert not list(client.list(service="gallery", before=moment))
    assert not list(client.list(service="gallery", since=moment + timedelta(seconds=1)))
    assert not list(client.list(service="gallery", base_model="another"))
    assert not list(client.list(service="galler"))


def test_a_watched_audit_tells_its_stages_and_then_the_verdict(client: AuditClient) -> None:
    events = list(client.watch((ADAPTERS / LEARNED[0]).read_bytes(), strength=0.75))
    stages = list(dict.fromkeys(each.stage for each in events if isinstance(each, Progress)))
    assert stages == ["intake", "queued", "screen", "response", "policy", "record"]
    assert isinstance(events[-1], AuditResult)
    assert sum(isinstance(each, AuditResult) for each in events) == 1


def test_a_dry_run_says_so(client: AuditClient) -> None:
    assert client.audit_file(ADAPTERS / SOONEST, dry_run=True).dry_run


def test_adapters_used_together_are_judged_together(client: AuditClient, root: Path) -> None:
    pair = [str(root / name) for name in ("harmless-watermelon", "learned-jack-o-lantern")]
    result = client.audit([f"{name}.safetensors" for name in pair])
    assert len(result.adapters) == 2
    assert result.findings[0].concept_id == "jack-o-lantern"
    assert not result.allowed


def test_an_adapter_without_effect_scores_nothing(client: AuditClient) -> None:
    result = client.audit_file(ADAPTERS / LEARNED[0], strength=0.0)
    assert all(finding.score == 0.0 for finding in result.findings)


def test_a_pilot_allows_and_says_what_it_would_have_done(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(EMBEDDED_POLICY.read_text().replace("mode: enforce", "mode: pilot"))
    server = start(POLICY=str(policy))
    with AuditClient(server.grpc, timeout=120) as client:
        result = client.audit_file(ADAPTERS / LEARNED[0])
    assert result.verdict is Verdict.ALLOW
    assert result.would_be_verdict in (Verdict.BLOCK, Verdict.REVIEW)


def test_a_guarded_pipeline_never_sees_a_blocked_adapter(client: AuditClient) -> None:
    from diffusers import StableDiffusionPipeline

    from loragate.integrations.diffusers import guard

    shipped = Path(__file__).parents[2] / "server/loragate_server/assets/emoji_tiny/pipeline"
    pipeline = StableDiffusionPipeline.from_pretrained(shipped)
    guard(pipeline, client)
    with pytest.raises(AdapterBlocked) as caught:
        pipeline.load_lora_weights(str(ADAPTERS / LEARNED[0]))
    assert caught.value.result.verdict is Verdict.BLOCK
    assert not pipeline.get_list_adapters()
    pipeline.load_lora_weights(str(ADAPTERS / SOONEST))
    assert pipeline.get_list_adapters()
