"""After a warm-up no launch compiles: checked against Triton itself, with a GPU that is played.

The compiler is real and compiles for sm_90; only what loads and launches its output is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import loragate_kernels
from loragate_kernels import BackendUnavailableError, backend, warm_up
from loragate_kernels import compile_monitor as monitors

PLAYED = """
import json, logging, sys
from types import SimpleNamespace
import torch, triton
from triton.backends.compiler import GPUTarget

class Utils:
    def load_binary(self, *args): return (None, None, 32, 0, 1024)
    def get_device_properties(self, device): return {"max_shared_mem": 1 << 17}
    def unload_module(self, module): pass

launched = []
triton.runtime.driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    utils=Utils(),
    launcher_cls=lambda src, metadata: lambda *args: launched.append(src.fn.__name__),
))

import loragate_kernels
from loragate_kernels import CompileMonitor, PairStatsConfig, pair_stats, process_monitor
from loragate_kernels.pair_stats import op
# the function hides the module of its name
module = sys.modules["loragate_kernels.warm_up"]
module.require_backend = op.require_backend = lambda backend, device: "triton"

def launch_everything(**options):
    pairs = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        whole = torch.zeros(3, 70017, dtype=dtype)
        pairs += [(view, view) for view in (whole[:1], whole[1:, 1:], whole[:, :1])]
    for count in (1, 2, len(pairs)):
        pair_stats(pairs[:count], backend="triton", **options)

result = {}
with CompileMonitor() as before:
    report = loragate_kernels.warm_up("cpu", operations=module.OPERATIONS[:1])
result["compiled"] = report.compiled
result["warmed_up"] = before.warmed_up
result["before"] = before.count
always = process_monitor()
assert process_monitor() is always
with CompileMonitor() as after:
    launch_everything()
result["after"] = after.count
result["launched"] = len(launched)
with CompileMonitor() as again:
    result["again"] = loragate_kernels.warm_up("cpu", operations=module.OPERATIONS[:1]).compiled
result["again_warmed_up"] = again.warmed_up
with CompileMonitor() as other:
    launch_everything(config=PairStatsConfig(block=1024))
result["other"] = other.compiled
launch_everything(config=PairStatsConfig(block=512))
result["other_after_stop"] = other.count
result["always"] = always.count
json.dump(result, sys.stdout)
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", PLAYED],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_warm_up_compiles_every_type_in_both_alignments_and_the_fold(
    played: dict[str, Any],
) -> None:
    expected = [
        f"pair_stats:{dtype}:{how}"
        for dtype in ("float32", "bfloat16", "float16")
        for how in ("aligned", "scalar")
    ]
    assert played["compiled"] == [*expected, "pair_stats:fold"]
    assert len(played["warmed_up"]) == 7
    assert played["before"] == 0


def test_no_launch_compiles_after_a_warm_up(played: dict[str, Any]) -> None:
    assert played["launched"] > 7
    assert played["after"] == 0


def test_a_second_warm_up_has_nothing_left_to_compile(played: dict[str, Any]) -> None:
    assert played["again"] == played["compiled"]
    assert played["again_warmed_up"] == []


def test_a_variant_that_was_not_warmed_up_is_counted_by_name(played: dict[str, Any]) -> None:
    assert len(played["other"]) == 6
    assert all("pair_stats_partial_kernel" in name for name in played["other"])


def test_a_monitor_that_was_stopped_counts_no_further(played: dict[str, Any]) -> None:
    assert played["other_after_stop"] == 6


def test_the_monitor_of_the_process_counts_on(played: dict[str, Any]) -> None:
    assert played["always"] == 12


def test_a_warm_up_where_kernels_cannot_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        warm_up("cpu")
    with pytest.raises(BackendUnavailableError, match="does not run on device 'meta'"):
        warm_up("meta")


def test_an_operation_joins_by_the_name_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another_operation.py").write_text(
        "done = []\n"
        "def compile_keys(device): return ['one', 'two']\n"
        "def compile_key(key, device): done.append((key, device.type))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = sys.modules["loragate_kernels.warm_up"]
    monkeypatch.setattr(module, "require_backend", lambda backend, device: "triton")
    monkeypatch.setattr(module, "is_interpreted", lambda: False)
    report = warm_up("cpu", operations=["another_operation"])
    assert report.compiled == ("one", "two")
    assert sys.modules["another_operation"].done == [("one", "cpu"), ("two", "cpu")]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Triton's settings, put back after the test; kernels count as compiled."""
    import triton

    monkeypatch.setattr(monitors, "is_interpreted", lambda: False)
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", None)
    return triton.knobs.runtime


def compile_one(runtime: Any, name: str, *, ahead: bool = False) -> Any:
    class Function:
        pass

    function = Function()
    function.name = name  # type: ignore[attr-defined]
    if runtime.jit_post_compile_hook is None:
        return None
    return runtime.jit_post_compile_hook(
        key="", repr="", fn=function, compile={}, is_manual_warmup=ahead, already_compiled=False
    )


def test_monitors_may_overlap_and_stop_in_any_order(hook: Any) -> None:
    first, second = loragate_kernels.CompileMonitor(), loragate_kernels.CompileMonitor()
    first.start()
    second.start()
    compile_one(hook, "a")
    first.stop()
    compile_one(hook, "b")
    first.start()
    compile_one(hook, "c")
    second.stop()
    compile_one(hook, "d", ahead=True)
    first.stop()
    compile_one(hook, "e")
    assert first.compiled == ("a", "c")
    assert first.warmed_up == ("d",)
    assert second.compiled == ("a", "b", "c")
    assert hook.jit_post_compile_hook is None


def test_whoever_listened_before_still_does(hook: Any) -> None:
    heard: list[str] = []
    hook.jit_post_compile_hook = lambda **given: heard.append(given["fn"].name)
    before = hook.jit_post_compile_hook
    with loragate_kernels.CompileMonitor() as monitor:
        compile_one(hook, "a")
    assert heard == ["a"]
    assert monitor.compiled == ("a",)
    assert hook.jit_post_compile_hook is before


def test_a_launch_that_compiles_is_logged(hook: Any, caplog: pytest.LogCaptureFixture) -> None:
    with loragate_kernels.CompileMonitor():
        compile_one(hook, "late")
        compile_one(hook, "early", ahead=True)
    assert [record.getMessage() for record in caplog.records] == [
        "kernel late was compiled by a launch, after warm-up"
    ]
