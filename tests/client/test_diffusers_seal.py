"""What the guard finds changed at the next use, and what it lets be changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from loragate import AdapterBlocked, AuditClient, Verdict
from loragate.integrations._diffusers.prints import Prints
from loragate.integrations.diffusers import UnauditedChange, guard
from loragate.testing import FakeAuditServer
from testkit.guard_doors.bench import Bench, Files, bare_pipeline
from testkit.parity_cases import CASES
from testkit.tiny_models import tiny_pipeline as family_pipeline
from tests.client.tiny_pipeline import forward, output, tiny_pipeline, write_adapter

pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Adapter cannot be set when the model is merged"),
    pytest.mark.filterwarnings("ignore:Already unmerged"),
    pytest.mark.filterwarnings("ignore:Merge"),
]


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def client(fake: FakeAuditServer) -> Iterator[AuditClient]:
    with AuditClient(fake.target, on_unavailable="raise") as made:
        yield made


def strengths(fake: FakeAuditServer) -> list[float]:
    return [one.denoiser_strength for one in fake.calls[-1].request.adapters]


def test_what_is_unloaded_while_it_is_fused_counts_for_good(
    client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    bare = output(pipeline)
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.fuse_lora(components=["unet"], lora_scale=0.25)
        fused = output(pipeline)
        pipeline.unload_lora_weights()
        assert torch.equal(output(pipeline), fused)
        assert not torch.allclose(fused, bare)
        pipeline.load_lora_weights(adapter_file, adapter_name="b")
        assert strengths(fake) == [1.25]


def test_what_is_fused_and_turned_off_is_taken_out_before_the_next_use(
    client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    bare = output(pipeline)
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.fuse_lora(components=["unet"])
        pipeline.disable_lora()
        fake.default = Verdict.BLOCK
        assert torch.allclose(output(pipeline), bare, atol=1e-5)
        with pytest.raises(AdapterBlocked):
            pipeline.enable_lora()


def test_a_fused_adapter_is_not_deleted_as_it_would_stay(
    client: AuditClient, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.fuse_lora(components=["unet"])
        with pytest.raises(ValueError, match="unfuse_lora first"):
            pipeline.delete_adapters("a")
        pipeline.unfuse_lora(components=["unet"])
        pipeline.delete_adapters("a")


def test_settings_from_which_strengths_are_made_are_looked_at(
    client: AuditClient, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        for layer in pipeline.unet.modules():
            if isinstance(layer, LoraLayer):
                layer.lora_alpha["a"] = 600
        pipeline.set_adapters("a", 0.5)
        with pytest.raises(UnauditedChange, match="lora_alpha of the adapter 'a'"):
            output(pipeline)
        pipeline.unload_lora_weights()
        output(pipeline)
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        output(pipeline)


def test_a_scale_of_nothing_that_resets_strengths_is_found(
    client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    """diffusers sets strengths to 1 when it takes a scale of 0 back."""
    pipeline = tiny_pipeline()
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        pipeline.set_adapters("a", 0.5)
        forward(pipeline, cross_attention_kwargs={"scale": 0.0})
        with pytest.raises(UnauditedChange, match="Set strengths by set_adapters"):
            output(pipeline)
        pipeline.set_adapters("a", 0.5)
        output(pipeline)


def test_a_remedy_that_a_refusal_names_works(
    client: AuditClient, fake: FakeAuditServer, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    bare = output(pipeline)
    config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    with guard(pipeline, client):
        inject_adapter_in_model(config, pipeline.unet, "sneaked")
        with pytest.raises(UnauditedChange, match=r"'sneaked' was never audited.*Unload it"):
            output(pipeline)
        pipeline.unet.unload_lora()
        assert torch.equal(output(pipeline), bare)
        pipeline.load_lora_weights(adapter_file, adapter_name="sneaked")
        assert not torch.allclose(output(pipeline), bare)


def test_what_was_asked_once_is_not_asked_again_at_each_use(
    client: AuditClient, fake: FakeAuditServer, files: Files
) -> None:
    bench = Bench(bare_pipeline(), files)
    with guard(bench.pipe, client):
        bench.pipe.load_lora_weights(files.a, adapter_name="a")
        bench.pipe.load_lora_weights(files.b, adapter_name="b")
        bench.pipe.set_adapters(["a", "b"], [0.5, 0.25])
        count = len(fake.calls)
        for _ in range(3):
            bench.picture()
        assert len(fake.calls) == count


def test_types_of_numbers_and_schedulers_may_be_changed(
    client: AuditClient, fake: FakeAuditServer, files: Files
) -> None:
    bench = Bench(bare_pipeline(), files)
    encoder = bench.pipe.text_encoder
    with guard(bench.pipe, client):
        bench.pipe.load_lora_weights(files.a, adapter_name="a")
        bench.picture()
        bench.pipe.to(torch.bfloat16)
        bench.picture()
        bench.pipe.unet.float()
        bench.pipe.to(dtype=torch.float32)
        bench.picture()
        bench.pipe.scheduler = EulerDiscreteScheduler.from_config(bench.pipe.scheduler.config)
        bench.pipe.register_modules(scheduler=DDIMScheduler())
        bench.pipe.text_encoder = None
        bench.pipe.text_encoder = encoder
        bench.pipe.vae.enable_slicing()
        bench.picture()


def test_looking_at_writes_alone_misses_what_torch_does_not_tell(
    client: AuditClient, adapter_file: Path
) -> None:
    pipeline = tiny_pipeline()
    with guard(pipeline, client, look="writes"):
        pipeline.unet.conv_in.weight.data.mul_(2.0)
        output(pipeline)
        with torch.no_grad():
            pipeline.unet.conv_in.weight.mul_(2.0)
        with pytest.raises(UnauditedChange, match=r"unet, the base weights conv_in\.weight"):
            output(pipeline)
    with pytest.raises(ValueError, match="look must be"):
        guard(pipeline, client, look="away")  # type: ignore[arg-type]


def test_a_compiled_model_is_looked_at_too(client: AuditClient, adapter_file: Path) -> None:
    pipeline = tiny_pipeline()
    with guard(pipeline, client):
        pipeline.load_lora_weights(adapter_file, adapter_name="a")
        before = output(pipeline)
        pipeline.unet.compile(backend="eager")
        assert torch.allclose(output(pipeline), before, atol=1e-5)
        for layer in pipeline.unet.modules():
            if isinstance(layer, LoraLayer):
                layer.set_scale("a", 3.0)
        with pytest.raises(UnauditedChange, match="Set strengths by set_adapters"):
            output(pipeline)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_pipelines_of_other_families_are_looked_at_too(
    client: AuditClient, fake: FakeAuditServer, family: str, tmp_path: Path
) -> None:
    file = next(iter(CASES[family].values()))(tmp_path).file

    def picture(pipeline: Any) -> torch.Tensor:
        made: torch.Tensor = pipeline(
            "a red cat",
            num_inference_steps=1,
            height=16,
            width=16,
            generator=torch.Generator().manual_seed(1),
            output_type="pt",
        ).images
        return made

    pipeline = family_pipeline(family)
    with guard(pipeline, client):
        bare = picture(pipeline)
        pipeline.load_lora_weights(file, adapter_name="a")
        assert picture(pipeline).shape == bare.shape
        pipeline.set_adapters("a", 0.5)
        assert strengths(fake) == [0.5]
        assert picture(pipeline).shape == bare.shape
        denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
        for layer in denoiser.modules():
            if isinstance(layer, LoraLayer):
                layer.set_scale("a", 3.0)
        with pytest.raises(UnauditedChange, match="Set strengths by set_adapters"):
            picture(pipeline)


def test_what_peft_put_in_before_the_guard_is_named(client: AuditClient) -> None:
    pipeline = tiny_pipeline()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q"]), pipeline.unet, "early")
    with pytest.raises(ValueError, match="'early' was loaded before the guard"):
        guard(pipeline, client)


def test_weights_that_are_not_in_memory_cannot_be_guarded(client: AuditClient) -> None:
    pipeline = tiny_pipeline()
    pipeline.unet.to("meta")
    with pytest.raises(UnauditedChange, match="Use enable_model_cpu_offload"):
        guard(pipeline, client)


def test_a_released_pipeline_is_as_it_was(client: AuditClient, fake: FakeAuditServer) -> None:
    pipeline = tiny_pipeline()
    own, names = type(pipeline), set(vars(pipeline)) | set(vars(pipeline.unet))
    with guard(pipeline, client):
        assert type(pipeline) is not own
        assert isinstance(pipeline, own)
        assert type(pipeline).__name__ == own.__name__
    assert type(pipeline) is own
    assert set(vars(pipeline)) | set(vars(pipeline.unet)) == names
    pipeline.unet = tiny_pipeline().unet


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.neg_(),
        lambda weight: weight.copy_(weight.flip(0)),
        lambda weight: weight.copy_(weight.flip(1)),
        lambda weight: weight.copy_(weight.roll(1, 0)),
        lambda weight: weight[3, 5].add_(1e-3),
        lambda weight: weight[-1, -1].mul_(-1),
    ],
)
@pytest.mark.parametrize("shape", [(7, 9), (300, 170)])
def test_sums_tell_changes_of_places_and_signs(change: Any, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    prints = Prints()
    before = prints.of([weight])
    assert prints.of([weight.clone()]) == before
    change(weight.data)
    assert prints.of([weight], anew=True) != before
