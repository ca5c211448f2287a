"""The guard before a real, tiny pipeline: nothing gets in unasked or changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from loragate import AdapterBlocked, AuditClient, Unavailable, Verdict
from loragate.integrations.diffusers import guard
from loragate.testing import FakeAuditServer
from tests.client.tiny_pipeline import ALPHA, output, tiny_pipeline, write_adapter


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def client(fake: FakeAuditServer) -> Iterator[AuditClient]:
    with AuditClient(fake.target, on_unavailable="raise") as made:
        yield made


def untouched(pipeline: Any) -> bool:
    return not getattr(pipeline.unet, "peft_config", None)


@pytest.mark.parametrize("how", ["file", "folder", "folder and name"])
def test_an_allowed_adapter_acts_as_without_the_guard(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path, how: str
) -> None:
    plain = tiny_pipeline()
    plain.load_lora_weights(adapter_file)
    with guard(pipeline, client, base_model="tiny"):
        if how == "file":
            pipeline.load_lora_weights(str(adapter_file), adapter_name="style")
        elif how == "folder":
            pipeline.load_lora_weights(adapter_file.parent, "style")
        else:
            pipeline.load_lora_weights(
                adapter_file.parent, weight_name=adapter_file.name, adapter_name="style"
            )
    assert pipeline.unet.peft_config["style"].lora_alpha == ALPHA
    assert torch.equal(output(pipeline), output(plain))
    assert not torch.equal(output(pipeline), output(tiny_pipeline()))
    asked = fake.calls[0].request
    assert asked.base_model == "tiny"
    assert asked.adapters[0].inline_bytes == adapter_file.read_bytes()


@pytest.mark.parametrize(
    ("verdict", "on_review", "loads"),
    [
        (Verdict.BLOCK, "allow", False),
        (Verdict.INCONCLUSIVE, "allow", False),
        (Verdict.REVIEW, "block", False),
        (Verdict.REVIEW, "allow", True),
    ],
)
def test_other_verdicts_keep_the_pipeline_untouched(
    pipeline: Any,
    client: AuditClient,
    fake: FakeAuditServer,
    adapter_file: Path,
    verdict: Verdict,
    on_review: Any,
    loads: bool,
) -> None:
    fake.default = verdict
    before = output(pipeline)
    with guard(pipeline, client, on_review=on_review):
        if loads:
            pipeline.load_lora_weights(adapter_file)
            return
        with pytest.raises(AdapterBlocked) as caught:
            pipeline.load_lora_weights(adapter_file)
    assert caught.value.result.verdict is verdict
    assert "learned forbidden-concept" in str(caught.value)
    assert adapter_file.name in str(caught.value)
    assert untouched(pipeline)
    assert torch.equal(output(pipeline), before)


def test_a_file_exchanged_during_the_audit_is_not_what_is_loaded(
    pipeline: Any, client: AuditClient, adapter_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(adapter_file.read_bytes())
    honest = tiny_pipeline()
    honest.load_lora_weights(adapter_file)

    def exchange() -> str:
        evil = {name: value * 100 for name, value in load_file(adapter_file).items()}
        save_file(evil, path)
        return "token"

    # The token is asked for after the file was read and before the verdict comes.
    with (
        AuditClient(client._core.config.target, token=exchange) as slow,
        guard(pipeline, slow),
    ):
        pipeline.load_lora_weights(path)
    assert path.read_bytes() != adapter_file.read_bytes()
    assert torch.equal(output(pipeline), output(honest))


def test_a_state_dict_is_audited_too(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    tensors = load_file(adapter_file)
    plain = tiny_pipeline()
    plain.load_lora_weights(dict(tensors))
    with guard(pipeline, client):
        pipeline.load_lora_weights(tensors)
        digest = hashlib.sha256(fake.calls[0].request.adapters[0].inline_bytes).hexdigest()
        fake.verdicts[digest] = Verdict.BLOCK
        with pytest.raises(AdapterBlocked):
            pipeline.load_lora_weights(tensors)
        with pytest.raises(TypeError, match="not a tensor"):
            pipeline.load_lora_weights({"lora": "text"})
    assert torch.equal(output(pipeline), output(plain))


def test_without_a_decision_nothing_is_loaded(
    pipeline: Any, fake: FakeAuditServer, adapter_file: Path
) -> None:
    fake.stop()
    with AuditClient(fake.target, timeout=1) as blocking, guard(pipeline, blocking):
        with pytest.raises(AdapterBlocked) as caught:
            pipeline.load_lora_weights(adapter_file)
        assert not caught.value.result.decided
    with (
        AuditClient(fake.target, timeout=20, on_unavailable="raise") as raising,
        guard(pipeline, raising),
        pytest.raises(Unavailable),
    ):
        pipeline.load_lora_weights(adapter_file)
    assert untouched(pipeline)


def test_a_folder_is_not_guessed_in(
    pipeline: Any, client: AuditClient, adapter_file: Path, tmp_path: Path
) -> None:
    with guard(pipeline, client):
        with pytest.raises(FileNotFoundError, match=r"no \.safetensors"):
            pipeline.load_lora_weights(tmp_path)
        for name in ("a.safetensors", "b.safetensors"):
            (tmp_path / name).write_bytes(adapter_file.read_bytes())
        with pytest.raises(ValueError, match=r"a\.safetensors, b\.safetensors"):
            pipeline.load_lora_weights(tmp_path)
    assert untouched(pipeline)


def test_a_hub_name_is_downloaded_once_and_its_bytes_are_loaded(
    pipeline: Any, client: AuditClient, adapter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def download(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name, options))
        return str(adapter_file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with guard(pipeline, client):
        pipeline.load_lora_weights("owner/name", weight_name="w.safetensors", revision="abc")
        with pytest.raises(ValueError, match="weight_name"):
            pipeline.load_lora_weights("owner/name", local_files_only=True)
    assert asked == [("owner/name", "w.safetensors", {"subfolder": None, "revision": "abc"})]
    assert not untouched(pipeline)


def test_the_pipeline_gets_its_own_method_back(pipeline: Any, client: AuditClient) -> None:
    outer = guard(pipeline, client)
    inner = guard(pipeline, client)
    with pytest.raises(RuntimeError, match="reverse order"):
        outer.release()
    inner.release()
    outer.release()
    outer.release()
    assert "load_lora_weights" not in vars(pipeline)
    assert pipeline.load_lora_weights.__func__ is StableDiffusionPipeline.load_lora_weights


def test_what_cannot_be_guarded_is_said_at_once(pipeline: Any, client: AuditClient) -> None:
    with pytest.raises(TypeError, match="no load_lora_weights"):
        guard(object(), client)
    with pytest.raises(ValueError, match="on_review"):
        guard(pipeline, client, on_review="perhaps")  # type: ignore[arg-type]
