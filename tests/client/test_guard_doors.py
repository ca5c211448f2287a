"""Every known way to change a pipeline's picture, tried on a guarded one: none is silently open."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from loragate.integrations._diffusers.closed import closed_methods
from loragate.testing import FakeAuditServer
from scripts.guard_doors import quiet, written
from testkit.guard_doors.bench import Files, bare_pipeline
from testkit.guard_doors.door import Door
from testkit.guard_doors.observe import DOORS, Seen, observe

ROWS = dict(re.findall(r"^\| `(.*)` \| (.*) \|$", written(), re.MULTILINE))

CHANGES = re.compile(
    "load|add|set_|inject|fuse|enable|disable|delete|attach|merge|swap|register|resize|convert"
    "|init|tie|update|prune|replace|lora|adapter|hot"
)
BRING_NOTHING = {
    # They compute the same in another way, or tell, save or train something.
    *("activation_checkpointing_disable", "activation_checkpointing_enable", "add_model_tags"),
    *("disable_attention_slicing", "disable_gradient_checkpointing", "disable_input_require_grads"),
    *("disable_npu_flash_attention", "disable_xformers_memory_efficient_attention"),
    *("disable_xla_flash_attention", "download", "enable_attention_slicing"),
    *("enable_gradient_checkpointing", "enable_input_require_grads", "enable_npu_flash_attention"),
    *("enable_parallelism", "enable_xformers_memory_efficient_attention", "dequantize"),
    *("enable_xla_flash_attention", "extract_init_dict", "get_active_adapters", "active_adapters"),
    *("get_adapter_state_dict", "get_expanded_tied_weights_keys", "get_init_context"),
    *("get_list_adapters", "gradient_checkpointing_disable", "gradient_checkpointing_enable"),
    *("init_parallel_plans", "load_config", "lora_state_dict", "mark_tied_weights_as_initialized"),
    *("maybe_convert_prompt", "post_init", "prepare_ip_adapter_image_embeds", "write_lora_layers"),
    *("register_for_auto_class", "register_to_config", "reset_device_map", "save_lora_adapter"),
    *("save_lora_weights", "set_attention_backend", "set_attention_slice", "set_attn_processor"),
    *("set_attn_implementation", "set_default_attn_processor", "set_experts_implementation"),
    *("set_lora_device", "set_progress_bar_config", "set_use_kernels", "reset_attention_backend"),
    *("set_use_memory_efficient_attention_xformers", "set_use_npu_flash_attention"),
    *("set_use_xla_flash_attention", "tie_weights", "warn_if_padding_and_no_attention_mask"),
    # They prepare for what is asked about later, or move weights.
    *("enable_group_offload", "enable_lora_hotswap", "enable_model_cpu_offload"),
    *("enable_peft_hotswap",),
    # They take away or undo.
    *("disable_freeu", "unfuse_lora", "unload_lora"),
    # They write weights or exchange modules, which the seal finds as it finds others.
    *("init_weights", "initialize_weights", "resize_position_embeddings", "set_decoder"),
    *("set_encoder", "set_output_embeddings"),
    # It needs an IP-Adapter, and none gets in.
    "set_ip_adapter_scale",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("doors"))


@pytest.fixture(autouse=True)
def silent() -> None:
    quiet()


@pytest.fixture(scope="module")
def service() -> Iterator[FakeAuditServer]:
    with FakeAuditServer() as server:
        yield server


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_what_comes_of_a_door_is_what_the_documentation_says(
    door: Door, files: Files, service: FakeAuditServer
) -> None:
    found = observe(door, files, service)
    assert ROWS[door.name] == found.seen.value
    if found.seen in (Seen.REFUSED, Seen.REFUSED_LATER):
        # What is wrong, and what to do instead.
        assert len(re.findall(r"\w[.]( |$)", found.sentence)) >= 2, found.sentence


def test_the_documentation_names_no_door_that_is_not_tried() -> None:
    assert ROWS.keys() == {door.name for door in DOORS}


def test_each_method_that_may_change_something_is_a_door_or_known_to_bring_nothing() -> None:
    pipeline = bare_pipeline()
    tried = " ".join(door.name for door in DOORS)
    closed = {name for name, _ in closed_methods(pipeline, is_pipeline=True)}
    for model in (pipeline.unet, pipeline.text_encoder):
        closed |= {name for name, _ in closed_methods(model, is_pipeline=False)}
    unknown = {
        name
        for kind in (StableDiffusionPipeline, UNet2DConditionModel, CLIPTextModel)
        for name in dir(kind)
        if CHANGES.search(name) and not name.startswith("_") and not hasattr(torch.nn.Module, name)
        if callable(getattr(kind, name))
        if f".{name}(" not in tried and name not in closed | BRING_NOTHING
    }
    assert unknown == set(), "decide for each whether the guard has to know it, and try it"
