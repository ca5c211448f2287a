"""The plugin inside SGLang's hook registry: the published one where it is at hand, else a harness.

`scripts/install_test_tools.sh` unpacks its wheel; `LORAGATE_TEST_SGLANG` names another folder. Its
registry and the life cycle of its plugins run as they are; its pipeline needs a GPU build, so here
stands a small one with the same methods, which really reads safetensors files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from loragate import AdapterBlocked, Verdict
from loragate.integrations import sglang as plugin
from loragate.testing import FakeAuditServer
from tests.client.sglang_harness import GPUWorker, LoRAPipeline, harness_registry
from tests.client.swapper import swapping

TOOLS = Path(__file__).parents[2] / "build" / "tools"
WHEEL = os.environ.get("LORAGATE_TEST_SGLANG", str(TOOLS / "sglang"))
REGISTRY = "sglang.multimodal_gen.runtime.platforms.plugins"
PIPELINE_MODULE = plugin.PIPELINE.rpartition(".")[0]
WORKER_MODULE = plugin.WORKER.rpartition(".")[0]


def _published_registry(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """SGLang's own two modules, over the three names that they take from its runtime."""
    setting = SimpleNamespace(get=lambda: "loragate")
    _module(monkeypatch, "sglang.srt.environ", envs=SimpleNamespace(SGLANG_PLUGINS=setting))
    _module(
        monkeypatch,
        "sglang.multimodal_gen.runtime.platforms",
        PLATFORM_PLUGINS_GROUP="sglang.multimodal_gen.platforms",
        get_selected_platform_dist=lambda: None,
    )
    _from_wheel(monkeypatch, "sglang.srt.plugins.hook_registry")
    return _from_wheel(monkeypatch, REGISTRY)


def _from_wheel(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    path = Path(WHEEL, *name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _put(monkeypatch, name, module)
    spec.loader.exec_module(module)
    return module


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(names)
    _put(monkeypatch, name, module)
    return module


def _put(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType) -> None:
    """Makes a module importable, with the packages above it."""
    monkeypatch.setitem(sys.modules, name, module)
    package, _, last = name.rpartition(".")
    if package:
        if package not in sys.modules:
            above = ModuleType(package)
            above.__path__ = []
            _put(monkeypatch, package, above)
        monkeypatch.setattr(sys.modules[package], last, module, raising=False)


@pytest.fixture(params=["harness", "published"])
def registry(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fake: FakeAuditServer
) -> ModuleType:
    """SGLang's modules in place, with fresh classes to hook; nothing is hooked yet."""
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    pipeline = type("LoRAPipeline", (LoRAPipeline,), dict(vars(LoRAPipeline)))
    worker = type("GPUWorker", (GPUWorker,), dict(vars(GPUWorker)))
    if request.param == "published":
        if not Path(WHEEL).is_dir():
            pytest.skip("scripts/install_test_tools.sh has not unpacked SGLang's wheel")
        module = _published_registry(monkeypatch)
    else:
        module = harness_registry(REGISTRY, plugin.register)
        _put(monkeypatch, REGISTRY, module)
    _module(monkeypatch, PIPELINE_MODULE, LoRAPipeline=pipeline)
    _module(monkeypatch, WORKER_MODULE, GPUWorker=worker)
    return module


@pytest.fixture
def pipeline(registry: Any) -> Any:
    registry.load_plugins()
    registry.apply_plugin_hooks()
    return resolve_name(plugin.PIPELINE)()


def weights(value: float) -> bytes:
    return save({"transformer.x.lora_A.weight": np.full((2, 4), value, np.float32)})


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asked(fake: FakeAuditServer) -> dict[str, float]:
    return {one.expected_sha256: one.denoiser_strength for one in fake.calls[-1].request.adapters}


@pytest.fixture
def style(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    path.write_bytes(weights(1.0))
    return path


def test_an_allowed_adapter_is_loaded_and_keeps_its_path(
    pipeline: Any, fake: FakeAuditServer, style: Path
) -> None:
    pipeline.set_lora("style", str(style), strength=0.8)
    assert asked(fake) == {digest(style.read_bytes()): 0.8}
    assert pipeline.loaded_adapter_paths == {"style": str(style)}
    assert pipeline.lora_adapters["style"]["transformer.x.lora_A.weight"].max() == 1.0
    assert fake.calls[-1].request.caller.service == "sglang"


@pytest.mark.parametrize("verdict", [Verdict.BLOCK, Verdict.REVIEW, Verdict.INCONCLUSIVE])
def test_nothing_else_than_allow_is_loaded(
    pipeline: Any, fake: FakeAuditServer, style: Path, verdict: Verdict
) -> None:
    fake.default = verdict
    with pytest.raises(AdapterBlocked):
        pipeline.set_lora("style", str(style))
    with pytest.raises(AdapterBlocked):
        pipeline.load_lora_adapter(str(style), "style", 0)
    assert not pipeline.lora_adapters


def test_without_a_decision_nothing_is_loaded(
    pipeline: Any, fake: FakeAuditServer, style: Path
) -> None:
    fake.stop()
    with pytest.raises(AdapterBlocked) as caught:
        pipeline.load_lora_adapter(str(style), "style", 0)
    assert not caught.value.result.decided
    assert not pipeline.lora_adapters


def test_several_and_their_strengths_are_audited_together(
    pipeline: Any, fake: FakeAuditServer, style: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights(2.0))
    both = {"style": style, "other": other}
    pipeline.set_lora(list(both), [str(path) for path in both.values()], strength=[0.5, -1.0])
    assert asked(fake) == {digest(weights(1.0)): 0.5, digest(weights(2.0)): -1.0}
    pipeline.set_lora("other", target="transformer", strength=3.0)
    assert asked(fake) == {digest(weights(2.0)): 3.0}
    fake.default = Verdict.BLOCK
    for change in (
        lambda: pipeline.set_lora("style", strength=100.0),
        lambda: pipeline.merge_lora_weights(strength=2.0),
    ):
        with pytest.raises(AdapterBlocked):
            change()
    assert pipeline.applied["transformer"] == [("other", 3.0)]
    assert "merged" not in pipeline.applied


def test_the_same_path_with_other_bytes_is_loaded_anew(
    pipeline: Any, fake: FakeAuditServer, style: Path
) -> None:
    pipeline.set_lora("style", str(style))
    style.write_bytes(weights(5.0))
    pipeline.set_lora("style", str(style))
    assert asked(fake) == {digest(weights(5.0)): 1.0}
    assert pipeline.lora_adapters["style"]["transformer.x.lora_A.weight"].max() == 5.0


def test_what_would_change_the_weights_past_the_audit_is_refused(
    pipeline: Any, fake: FakeAuditServer, style: Path
) -> None:
    for call in (
        lambda: pipeline.set_lora("style", str(style), lora_alpha=32),
        lambda: pipeline.load_lora_adapter(str(style), "style", 0, lora_alpha=32),
        lambda: pipeline.set_lora("never-seen"),
    ):
        with pytest.raises(ValueError, match=r"audit"):
            call()
    config = style.parent / "adapter_config.json"
    config.write_text(json.dumps({"r": 2, "lora_alpha": 64}))
    with pytest.raises(ValueError, match="fold them"):
        pipeline.set_lora("style", str(style))
    config.write_text(json.dumps({"r": 2, "lora_alpha": 2}))
    pipeline.set_lora("style", str(style))
    assert list(pipeline.lora_adapters) == ["style"]


def test_the_doors_beside_set_lora_are_closed(
    registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.load_plugins()
    registry.apply_plugin_hooks()
    worker = resolve_name(plugin.WORKER)()
    for door in (worker.update_weights_from_disk, worker.update_weights_from_tensor):
        with pytest.raises(PermissionError, match="LORAGATE_SGLANG_ALLOW_WEIGHT_UPDATES=1"):
            door("/elsewhere")


def test_the_server_does_not_start_where_a_hook_found_no_target(registry: Any) -> None:
    del resolve_name(PIPELINE_MODULE).LoRAPipeline
    registry.load_plugins()
    with pytest.raises(SystemExit, match="may have moved"):
        registry.apply_plugin_hooks()


def test_the_server_does_not_start_where_the_hook_was_lost(registry: Any) -> None:
    registry.load_plugins()
    registry.HookRegistry._patched.update(registry.HookRegistry._hooks)  # says so, did nothing
    with pytest.raises(SystemExit, match="not wrapped"):
        registry.apply_plugin_hooks()


def test_the_server_does_not_start_with_settings_that_make_no_sense(
    registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAGATE_ON_UNAVAILABLE", "perhaps")
    with pytest.raises(SystemExit, match="on_unavailable must be"):
        registry.load_plugins()


def test_without_a_registry_the_plugin_says_so(
    monkeypatch: pytest.MonkeyPatch, fake: FakeAuditServer
) -> None:
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    with pytest.raises(SystemExit, match="no HookRegistry"):
        plugin.register()


def test_a_file_that_keeps_changing_is_never_loaded_unaudited(
    pipeline: Any, fake: FakeAuditServer, style: Path
) -> None:
    """Another process replaces the file all the time; whatever is loaded was allowed before."""
    evil = weights(666.0)
    fake.verdicts[digest(evil)] = Verdict.BLOCK
    outcomes = set()
    with swapping(style, weights(1.0), evil):
        for _ in range(int(os.environ.get("LORAGATE_TEST_SWAPS", "1000"))):
            pipeline.lora_adapters.clear()
            try:
                pipeline.load_lora_adapter(str(style), "style", 0)
            except AdapterBlocked:
                assert not pipeline.lora_adapters
                outcomes.add("blocked")
                continue
            assert pipeline.lora_adapters["style"]["transformer.x.lora_A.weight"].max() == 1.0
            outcomes.add("loaded")
    assert outcomes == {"loaded", "blocked"}
