"""The guard where adapters are mixed, swapped, fused and scaled: all of it is audited first."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save, save_file

from loragate import AdapterBlocked, AdapterReference, AuditClient, Verdict
from loragate.integrations._together import audit_together
from loragate.integrations.diffusers import UnauditedChange, guard
from loragate.testing import FakeAuditServer
from tests.client.swapper import swapping
from tests.client.tiny_pipeline import ALPHA, forward, output, tiny_pipeline, write_adapter

# peft warns of every second adapter, and of loading beside a fused one; both are meant here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Adapter cannot be set when the model is merged"),
    pytest.mark.filterwarnings("ignore:Already unmerged"),
]


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def other_file(adapter_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another LoRA of the same shape."""
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_file({name: -value for name, value in load_file(adapter_file).items()}, path)
    return path


@pytest.fixture
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def client(fake: FakeAuditServer) -> Iterator[AuditClient]:
    with AuditClient(fake.target, on_unavailable="raise") as made:
        yield made


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def asked(fake: FakeAuditServer) -> dict[str, float]:
    """Digest to strength of the adapters of the last question."""
    return {one.expected_sha256: one.denoiser_strength for one in fake.calls[-1].request.adapters}


def untouched(pipeline: Any) -> bool:
    return not getattr(pipeline.unet, "peft_config", None)


def test_adapters_are_audited_together_at_the_strengths_that_are_set(
    pipeline: Any,
    client: AuditClient,
    fake: FakeAuditServer,
    adapter_file: Path,
    other_file: Path,
) -> None:
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.load_lora_weights(other_file, adapter_name="b")
        assert asked(fake) == {digest(other_file): 1.0}
        pipeline.set_adapters(["a", "b"], [0.5, {"unet": {"down": 0.2, "up": -2.0}}])
        assert asked(fake) == {digest(adapter_file): 0.5, digest(other_file): -2.0}
        fake.default = Verdict.BLOCK
        before = output(pipeline)
        for change in (
            lambda: pipeline.set_adapters(["a", "b"], [3.0, 1.0]),
            lambda: pipeline.set_adapters("a", -1.0),
            lambda: pipeline.unet.set_adapters(["b"], [4.0]),
            lambda: pipeline.fuse_lora(components=["unet"], lora_scale=2.0),
            lambda: pipeline.unet.fuse_lora(2.0),
            lambda: pipeline.enable_lora(),
        ):
            with pytest.raises(AdapterBlocked):
                change()
            assert torch.equal(output(pipeline), before)
        assert asked(fake) == {digest(adapter_file): 0.5, digest(other_file): -2.0}


def test_turning_adapters_off_needs_no_decision(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    plain = output(pipeline)
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        fake.stop()
        pipeline.set_adapters("a", 0.0)
        assert torch.equal(output(pipeline), plain)
        pipeline.disable_lora()
        pipeline.enable_lora()
        pipeline.unload_lora_weights()


def test_what_is_fused_counts_until_it_is_unfused(
    pipeline: Any,
    client: AuditClient,
    fake: FakeAuditServer,
    adapter_file: Path,
    other_file: Path,
) -> None:
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.set_adapters("a", 0.5)
        pipeline.fuse_lora(components=["unet"], lora_scale=0.5)
        assert asked(fake) == {digest(adapter_file): 0.25}
        pipeline.load_lora_weights(other_file, adapter_name="b")
        assert asked(fake) == {digest(adapter_file): 0.25, digest(other_file): 1.0}
        pipeline.unfuse_lora(components=["unet"])
        pipeline.set_adapters("b", 0.7)
        assert asked(fake) == {digest(other_file): 0.7}


def test_a_swap_asks_about_the_new_bytes_under_the_old_name(
    pipeline: Any,
    client: AuditClient,
    fake: FakeAuditServer,
    adapter_file: Path,
    other_file: Path,
) -> None:
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        fake.verdicts[digest(other_file)] = Verdict.BLOCK
        before = output(pipeline)
        with pytest.raises(AdapterBlocked):
            pipeline.load_lora_weights(other_file, adapter_name="a", hotswap=True)
        assert torch.equal(output(pipeline), before)
        fake.verdicts.clear()
        pipeline.load_lora_weights(other_file, adapter_name="a", hotswap=True)
        assert not torch.equal(output(pipeline), before)
        pipeline.set_adapters("a", 0.9)
        assert asked(fake) == {digest(other_file): 0.9}


def test_a_denoiser_asks_too_and_so_does_the_scale_of_a_call(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    with guard(pipeline, client):
        pipeline.unet.load_lora_adapter(adapter_file, prefix="unet", adapter_name="a")
        assert pipeline.unet.peft_config["a"].lora_alpha == ALPHA
        assert len(fake.calls) == 1
        for _ in range(2):
            forward(pipeline, cross_attention_kwargs={"scale": 0.5})
        assert asked(fake) == {digest(adapter_file): 0.5}
        assert len(fake.calls) == 2
        fake.default = Verdict.BLOCK
        with pytest.raises(AdapterBlocked):
            forward(pipeline, cross_attention_kwargs={"scale": 5.0})
        with pytest.raises(AdapterBlocked):
            pipeline.unet.load_lora_adapter(adapter_file, prefix="unet", adapter_name="b")
        assert list(pipeline.unet.peft_config) == ["a"]


@pytest.mark.parametrize("how", ["file", "state dict"])
@pytest.mark.parametrize(
    "beside",
    [
        {"network_alphas": {"unet.x.alpha": 60}},
        {"metadata": {"r": 2, "lora_alpha": 400, "target_modules": ["to_q"]}},
        {"unet_config": UNet2DConditionModel().config},
        {"lora_config": {"lora_alpha": 400}},
        {"variant": "evil"},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_what_changes_the_weights_beside_them_is_refused(
    pipeline: Any, client: AuditClient, adapter_file: Path, beside: dict[str, Any], how: str
) -> None:
    source = adapter_file if how == "file" else load_file(adapter_file)
    with guard(pipeline, client):
        with pytest.raises((ValueError, TypeError), match=r"cannot be audited|does not know"):
            pipeline.unet.load_lora_adapter(source, prefix="unet", **beside)
        with pytest.raises((ValueError, TypeError), match=r"cannot be audited|does not know"):
            pipeline.load_lora_weights(source, **beside)
    assert untouched(pipeline)


@pytest.mark.parametrize("prefix", [{"prefix": "transformer"}, {"prefix": "evil"}, {}])
def test_a_prefix_that_takes_other_weights_than_were_audited_is_refused(
    pipeline: Any, client: AuditClient, adapter_file: Path, prefix: dict[str, str]
) -> None:
    name = prefix.get("prefix", "transformer")
    file = load_file(adapter_file)
    both = file | {key.replace("unet.", f"{name}.", 1): one for key, one in file.items()}
    with guard(pipeline, client), pytest.raises(ValueError, match="Pass prefix='unet'"):
        pipeline.unet.load_lora_adapter(both, **prefix)
    assert untouched(pipeline)


def test_a_file_without_prefixes_is_not_loaded_as_it_was_not_audited(
    pipeline: Any, client: AuditClient, adapter_file: Path
) -> None:
    bare = {key.removeprefix("unet."): one for key, one in load_file(adapter_file).items()}
    with guard(pipeline, client), pytest.raises(ValueError, match="prefix=None takes other"):
        pipeline.unet.load_lora_adapter(bare, prefix=None)
    assert untouched(pipeline)


def test_keywords_that_say_nothing_of_the_weights_pass(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    plain = tiny_pipeline()
    # Without it diffusers does not read the header, where the alpha of this file is.
    plain.unet.load_lora_adapter(
        adapter_file, prefix="unet", adapter_name="a", use_safetensors=True
    )
    with guard(pipeline, client):
        pipeline.unet.load_lora_adapter(
            adapter_file,
            prefix="unet",
            adapter_name="a",
            network_alphas=None,
            metadata=None,
            low_cpu_mem_usage=False,
            use_safetensors=True,
            _pipeline=pipeline,
        )
    assert asked(fake) == {digest(adapter_file): 1.0}
    assert torch.equal(output(pipeline), output(plain))


def test_adapters_loaded_past_the_guard_are_named(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    with guard(pipeline, client):
        with pytest.raises(ValueError, match="cannot be audited"):
            StableDiffusionPipeline.load_lora_weights(pipeline, adapter_file)
        with pytest.raises(UnauditedChange, match="load_state_dict changes a guarded pipeline"):
            UNet2DConditionModel.load_lora_adapter(
                pipeline.unet, adapter_file, prefix="unet", adapter_name="halfway"
            )
        config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
        inject_adapter_in_model(config, pipeline.unet, "sneaked")
        with pytest.raises(ValueError, match="'sneaked' was never audited"):
            pipeline.set_adapters("sneaked", 0.5)
        assert not fake.calls
    with pytest.raises(ValueError, match="'sneaked' was loaded before the guard"):
        guard(pipeline, client)


def test_many_large_adapters_are_asked_about_by_their_digests(
    client: AuditClient, fake: FakeAuditServer
) -> None:
    large = [AdapterReference(data=bytes([n]) * 2_000_000, strength=0.5) for n in range(3)]
    assert audit_together(client, large).allowed
    final = fake.calls[-1].request
    assert [one.WhichOneof("source") for one in final.adapters] == ["stored_sha256"] * 3
    fake.verdicts[large[1].sha256] = Verdict.BLOCK
    assert audit_together(client, large).verdict is Verdict.BLOCK
    unseen = AdapterReference(data=b"z" * 2_000_000)
    fake.verdicts[unseen.sha256] = Verdict.BLOCK
    assert audit_together(client, [unseen, *large]).verdict is Verdict.BLOCK
    assert fake.calls[-1].request.adapters[0].expected_sha256 == unseen.sha256


def test_a_file_that_keeps_changing_is_never_loaded_unaudited(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, tmp_path: Path, adapter_file: Path
) -> None:
    """Another process replaces the file all the time; whatever is loaded was allowed before."""
    rounds = int(os.environ.get("LORAGATE_TEST_SWAPS", "100"))
    good, evil = (
        adapter_file.read_bytes(),
        save({name: value * 100 for name, value in load_file(adapter_file).items()}),
    )
    fake.verdicts[hashlib.sha256(evil).hexdigest()] = Verdict.BLOCK
    path = tmp_path / "style.safetensors"
    outcomes = []
    with swapping(path, good, evil), guard(pipeline, client):
        for _ in range(rounds):
            try:
                pipeline.load_lora_weights(path, adapter_name="a")
            except AdapterBlocked:
                outcomes.append("blocked")
                assert untouched(pipeline)
                continue
            outcomes.append("loaded")
            weights = [p for n, p in pipeline.unet.named_parameters() if "lora_B" in n]
            assert max(float(weight.detach().abs().max()) for weight in weights) < 50
            pipeline.unload_lora_weights()
    assert set(outcomes) == {"loaded", "blocked"}


@pytest.mark.parametrize(
    "weights",
    [
        {"unet": {"down": 0.2, "up": -2.0}},
        {"unet": {"down": 1.0, "mid": 0.0, "up": -1.01}},
        {"unet": {"up": {"block_0": [0.5, -0.25]}}},
    ],
)
@pytest.mark.parametrize("of", ["pipeline", "unet"])
def test_strengths_that_differ_by_block_are_audited_as_the_file_that_they_make(
    pipeline: Any,
    client: AuditClient,
    fake: FakeAuditServer,
    adapter_file: Path,
    tmp_path: Path,
    weights: Any,
    of: str,
) -> None:
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        before = output(pipeline)
        fake.calls.clear()

        def change() -> None:
            if of == "unet":
                pipeline.unet.set_adapters(["a"], [weights["unet"]])
            else:
                pipeline.set_adapters(["a"], [weights])

        change()
        made = fake.calls[0].request.adapters[0]
        assert (made.denoiser_strength, made.expected_sha256) != (1.0, digest(adapter_file))
        assert made.denoiser_strength == 1.0
        really = output(pipeline)
        # Turned off and on again, it is asked about as it really is.
        fake.verdicts[made.expected_sha256] = Verdict.BLOCK
        for again in (pipeline.enable_lora, change, lambda: pipeline.fuse_lora(["unet"])):
            with pytest.raises(AdapterBlocked):
                again()
    alike = tiny_pipeline()
    folded = tmp_path / "folded.safetensors"
    folded.write_bytes(made.inline_bytes)
    alike.load_lora_weights(folded)
    assert torch.allclose(output(alike), really, atol=1e-5)
    assert not torch.allclose(really, before, atol=1e-3)


def test_an_adapter_that_is_named_twice_is_refused(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        before = output(pipeline)
        for change in (
            lambda: pipeline.set_adapters(["a", "a"], [0.1, 5.0]),
            lambda: pipeline.unet.set_adapters(["a", "a"], [0.1, 5.0]),
        ):
            with pytest.raises(ValueError, match="named twice"):
                change()
        assert torch.equal(output(pipeline), before)


def test_the_scale_of_a_call_is_asked_about_again_when_the_verdict_has_run_out(
    pipeline: Any, client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    def soon(verdict: Any) -> None:
        verdict.decided_at.seconds -= 3600
        verdict.expires_at.seconds = int(time.time()) - 26  # within the clocks' difference

    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        fake.falsify = soon
        forward(pipeline, cross_attention_kwargs={"scale": 0.5})
        forward(pipeline, cross_attention_kwargs={"scale": 0.5})
        assert len(fake.calls) == 2
        time.sleep(4.5)
        fake.default = Verdict.BLOCK
        with pytest.raises(AdapterBlocked):
            forward(pipeline, cross_attention_kwargs={"scale": 0.5})
