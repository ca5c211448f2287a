"""The node pack inside ComfyUI's hook interfaces: a harness, as ComfyUI is no package of PyPI.

The harness has the functions and the prompt handling of ComfyUI that the pack touches, with their
traps: handlers whose exceptions are swallowed, nodes that keep what they loaded, other nodes that
apply LoRAs by themselves. Files, tensors and patches are real.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

import loragate
from loragate import AdapterBlocked, Verdict
from loragate.testing import FakeAuditServer
from tests.client.comfyui_harness import PACK, Clip, Model, comfy_modules
from tests.client.swapper import swapping


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "loras"
    (folder / "sub").mkdir(parents=True)
    (folder / "style.safetensors").write_bytes(weights(1.0))
    (folder / "sub" / "other.safetensors").write_bytes(weights(2.0))
    return folder


@pytest.fixture
def comfy(loras: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeAuditServer) -> SimpleNamespace:
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    return comfy_modules(loras, monkeypatch)


@pytest.fixture
def pack(comfy: SimpleNamespace) -> Any:
    return importlib.import_module(PACK)


def weights(value: float) -> bytes:
    return save({"lora_unet_x.lora_up.weight": torch.full((4, 2), value)})


def digest(value: float) -> str:
    return hashlib.sha256(weights(value)).hexdigest()


def asked(fake: FakeAuditServer) -> list[tuple[str, float, float]]:
    return [
        (one.expected_sha256, one.denoiser_strength, one.text_encoder_strength)
        for one in fake.calls[-1].request.adapters
    ]


def graph(**inputs: Any) -> dict[str, Any]:
    node = {"class_type": "AnyLoader", "inputs": inputs}
    return {"prompt": {"7": node}, "client_id": "c", "partial_execution_targets": ["7"]}


def test_the_node_loads_what_is_allowed_at_its_strengths(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    node = pack.NODE_CLASS_MAPPINGS["LoragateLoraLoader"]
    choices = node.INPUT_TYPES()["required"]["lora_name"]
    assert choices == (["style.safetensors", "sub/other.safetensors"],)
    loader = node()
    model, clip = getattr(loader, node.FUNCTION)(
        model=Model(),
        clip=Clip(),
        lora_name="style.safetensors",
        strength_model=0.5,
        strength_clip=0.25,
    )
    assert asked(fake) == [(digest(1.0), 0.5, 0.25)]
    ((loaded, strength),) = model.patches
    assert strength == 0.5
    assert loaded["lora_unet_x.lora_up.weight"].max() == 1.0
    assert len(clip.patcher.patches) == 1


def test_the_pack_loads_from_a_link_in_custom_nodes(
    comfy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeAuditServer
) -> None:
    folder = Path(loragate.__file__).parent / "integrations" / "comfyui"
    link = tmp_path / "custom_nodes" / "loragate"
    link.parent.mkdir()
    link.symlink_to(folder)
    name = str(link).replace(".", "_x_")  # as ComfyUI names the modules of packs
    spec = importlib.util.spec_from_file_location(name, link / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert "LoragateLoraLoader" in module.NODE_CLASS_MAPPINGS
    fake.default = Verdict.BLOCK
    with pytest.raises(AdapterBlocked):
        comfy.folder_paths.get_full_path("loras", "style.safetensors")


def test_loras_in_a_chain_are_audited_together(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    node = pack.NODE_CLASS_MAPPINGS["LoragateLoraLoader"]()
    model, clip = node.load(Model(), "style.safetensors", 0.5, Clip(), 0.4)
    node.load(model, "sub/other.safetensors", -1.0)
    assert asked(fake) == [(digest(1.0), 0.5, 0.4), (digest(2.0), -1.0, 0.0)]
    node.load(model, "sub/other.safetensors", 1.0, clip, 2.0)
    assert asked(fake) == [(digest(1.0), 0.5, 0.4), (digest(2.0), 1.0, 2.0)]
    fake.default = Verdict.BLOCK
    kept = comfy.utils.load_torch_file  # a node that kept the tensors applies them more strongly
    with pytest.raises(AdapterBlocked):
        kept(comfy.folder_paths.get_full_path("loras", "style.safetensors"))


@pytest.mark.parametrize(
    "load",
    [
        lambda c: c.folder_paths.get_full_path_or_raise("loras", "style.safetensors"),
        lambda c: c.folder_paths.get_full_path("loras", "style.safetensors"),
        lambda c: c.utils.load_torch_file(f"{c.folder}/style.safetensors", safe_load=True),
        lambda c: c.utils.load_torch_file(f"{c.folder}/../loras/style.safetensors"),
        lambda c: c.utils.load_torch_file(c.link, return_metadata=True),
        lambda c: c.lora.load_lora(c.tensors, {}),
        lambda c: c.sd.load_lora_for_models(Model(), None, c.tensors, 1.0, 0.0),
        lambda c: c.sd.load_lora_for_models(None, Clip(), c.tensors, 0.0, 1.0),
        lambda c: c.by_name("loras", "style.safetensors"),
    ],
)
def test_every_way_of_loading_is_refused_when_the_service_decides_so(
    comfy: Any,
    loras: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeAuditServer,
    load: Any,
) -> None:
    early = ModuleType("early_custom_node")
    early.by_name = comfy.folder_paths.get_full_path_or_raise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, early.__name__, early)
    importlib.import_module(PACK)
    comfy.folder, comfy.link = loras, str(tmp_path / "link.safetensors")
    Path(comfy.link).symlink_to(loras / "style.safetensors")
    comfy.tensors = load_file(loras / "style.safetensors")
    comfy.by_name = early.by_name  # type: ignore[attr-defined]
    load(comfy)
    for fake.default in (Verdict.BLOCK, Verdict.REVIEW, Verdict.INCONCLUSIVE):
        with pytest.raises(AdapterBlocked):
            load(comfy)


def test_tensors_that_a_node_has_changed_are_audited_as_they_are(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    path = comfy.folder_paths.get_full_path("loras", "style.safetensors")
    tensors = comfy.utils.load_torch_file(path)
    comfy.sd.load_lora_for_models(Model(), None, tensors, 1.0, 0.0)
    assert asked(fake) == [(digest(1.0), 1.0, 0.0)]
    tensors["lora_unet_x.lora_up.weight"] *= 3
    comfy.sd.load_lora_for_models(Model(), None, tensors, 1.0, 0.0)
    assert asked(fake) == [(digest(3.0), 1.0, 0.0)]
    tensors["lora_unet_x.lora_up.weight"] = torch.full((4, 2), 9.0)
    comfy.lora.load_lora(tensors, {})
    assert asked(fake) == [(digest(9.0), 1.0, 1.0)]


def test_other_models_load_as_before(
    pack: Any, comfy: Any, loras: Path, fake: FakeAuditServer
) -> None:
    checkpoint = loras.parent / "checkpoints" / "base.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(weights(7.0))
    assert comfy.folder_paths.get_full_path("checkpoints", "base.safetensors") == str(checkpoint)
    assert type(comfy.utils.load_torch_file(str(checkpoint))) is dict
    assert comfy.folder_paths.get_full_path("loras", "missing.safetensors") is None
    assert not fake.calls


@pytest.mark.parametrize(
    "inputs",
    [
        {"lora_name": "style.safetensors", "strength_model": 0.5},
        {"anything": "sub\\other.safetensors"},
        {"stack": [{"on": True, "file": {"name": "sub/other.safetensors"}}]},
    ],
)
def test_a_denied_graph_is_answered_with_the_reason(
    pack: Any, comfy: Any, fake: FakeAuditServer, inputs: Any
) -> None:
    assert comfy.server.post_prompt(graph(**inputs)) == (200, "queued")
    assert len(fake.calls) == 1
    fake.default = Verdict.BLOCK
    status, sentence = comfy.server.post_prompt(graph(**inputs))
    assert status == 400
    assert "learned forbidden-concept" in sentence
    assert "(decision " in sentence


def test_the_handler_fails_closed(pack: Any, comfy: Any, fake: FakeAuditServer) -> None:
    assert comfy.server.post_prompt(graph(text="no lora here")) == (200, "queued")
    fake.fail_next("AUDIT_FAILED", message="The audit broke.")
    status, sentence = comfy.server.post_prompt(graph(lora_name="style.safetensors"))
    assert (status, "The audit broke." in sentence) == (400, True)
    vars(comfy.folder_paths)["get_filename_list"] = None  # whatever breaks inside
    assert comfy.server.post_prompt(graph(lora_name="style.safetensors"))[0] == 400


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("folder_paths", "get_full_path_or_raise"),
        ("comfy.utils", "load_torch_file"),
        ("comfy.sd", "load_lora_for_models"),
        ("comfy.lora", "load_lora"),
        ("server", "PromptServer"),
    ],
)
def test_where_the_gate_does_not_fit_no_lora_loads_at_all(
    comfy: Any, loras: Path, module: str, name: str
) -> None:
    delattr(sys.modules[module], name)
    with pytest.raises(ImportError, match="no LoRA will load"):
        importlib.import_module(PACK)
    tensors = load_file(loras / "style.safetensors")
    for load in (
        lambda: comfy.folder_paths.get_full_path("loras", "style.safetensors"),
        lambda: comfy.sd.load_lora_for_models(Model(), None, tensors, 1.0, 0.0),
        lambda: comfy.lora.load_lora(tensors, {}),
    ):
        with pytest.raises((RuntimeError, AttributeError)):
            load()
    assert comfy.folder_paths.get_full_path("checkpoints", "missing") is None


def test_settings_that_make_no_sense_close_the_door_too(
    comfy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAGATE_ON_REVIEW", "perhaps")
    with pytest.raises(ImportError, match="on_review"):
        importlib.import_module(PACK)
    with pytest.raises(RuntimeError, match="nothing is loaded as a LoRA"):
        comfy.folder_paths.get_full_path("loras", "style.safetensors")


def test_a_file_that_keeps_changing_is_never_loaded_unaudited(
    pack: Any, comfy: Any, loras: Path, fake: FakeAuditServer
) -> None:
    fake.verdicts[digest(666.0)] = Verdict.BLOCK
    outcomes = set()
    with swapping(loras / "style.safetensors", weights(1.0), weights(666.0)):
        for _ in range(200):
            try:
                path = comfy.folder_paths.get_full_path_or_raise("loras", "style.safetensors")
            except AdapterBlocked:
                outcomes.add("blocked")
                continue
            tensors = comfy.utils.load_torch_file(path)
            assert tensors["lora_unet_x.lora_up.weight"].max() == 1.0
            outcomes.add("loaded")
    assert outcomes == {"loaded", "blocked"}


def test_a_lora_that_is_applied_again_and_again_adds_up(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    node = pack.NODE_CLASS_MAPPINGS["LoragateLoraLoader"]()
    model, clip = Model(), Clip()
    for times in range(1, 5):
        model, clip = node.load(model, "style.safetensors", 0.5, clip, 0.25)
        assert asked(fake) == [(digest(1.0), 0.5 * times, 0.25 * times)]
        model.model_options = copy.deepcopy(model.model_options)  # as older versions clone


def test_what_was_applied_to_another_model_undoes_nothing(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    node = pack.NODE_CLASS_MAPPINGS["LoragateLoraLoader"]()
    _, clip = node.load(Model(), "style.safetensors", -1.0, Clip(), 0.1)
    fake.calls.clear()
    node.load(Model(), "style.safetensors", 1.0, clip, 0.1)
    questions = [
        [(one.denoiser_strength, one.text_encoder_strength) for one in call.request.adapters]
        for call in fake.calls
    ]
    assert [(1.0, 0.2)] in questions


def test_a_path_that_was_kept_is_asked_about_again_when_its_verdict_has_run_out(
    pack: Any, comfy: Any, fake: FakeAuditServer
) -> None:
    def soon(verdict: Any) -> None:
        verdict.decided_at.seconds -= 3600
        verdict.expires_at.seconds = int(time.time()) - 26  # within the clocks' difference

    fake.falsify = soon
    path = comfy.folder_paths.get_full_path("loras", "style.safetensors")
    fake.falsify = None
    comfy.server.post_prompt(graph(lora_name="style.safetensors", strength_model=0.01))
    time.sleep(4.5)
    fake.default = Verdict.BLOCK
    with pytest.raises(AdapterBlocked):
        comfy.utils.load_torch_file(path)
