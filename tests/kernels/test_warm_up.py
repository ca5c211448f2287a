"""After a warm-up no launch compiles: checked against Triton itself, with a GPU that is played.

The compiler is real and compiles for sm_90; only what loads and launches its output is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    def load_binary(self, *args): return ("module", "function", 32, 0, 1024)
    def get_device_properties(self, device): return {"max_shared_mem": 1 << 17}
    def unload_module(self, module): pass

launched, variants = [], []
def launcher(src, metadata):
    # made once for each compiled variant, at its first launch
    variants.append(src.fn.__name__)
    return lambda *args: launched.append(src.fn.__name__)

triton.runtime.driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    utils=Utils(),
    launcher_cls=launcher,
))

import loragate_kernels
from loragate_kernels import (
    CompileMonitor, Directions, LayerDirections, LowRank, PairStatsConfig, inner_products,
    pair_stats, process_monitor,
)
# functions hide the modules of their names
for name in ("warm_up", "pair_stats.op", "lora_response.op"):
    sys.modules["loragate_kernels." + name].require_backend = lambda backend, device: "triton"

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

def launch_pairs(**options):
    pairs = []
    for dtype in DTYPES:
        whole = torch.zeros(3, 70017, dtype=dtype)
        pairs += [(view, view) for view in (whole[:1], whole[1:, 1:], whole[:, :1])]
    for count in (1, 2, len(pairs)):
        pair_stats(pairs[:count], backend="triton", **options)

def launch_products():
    ranks = (1, 16, 17, 40, 100, 200)
    for dtype in DTYPES:
        for d_out, d_in in ((24, 40), (1, 41)):
            def made(rows, columns):
                return torch.zeros(rows, columns, dtype=dtype)
            each = [LowRank(made(rank, d_in), made(d_out, rank)) for rank in ranks]
            for layer in (*([one] for one in each), each):
                for lengths in ((1,), (3, 0, 24)):
                    sides = made(sum(lengths), d_out), made(sum(lengths), d_in)
                    known = Directions((LayerDirections.low_rank(*sides, lengths),))
                    inner_products([layer], known, backend="triton")

result = {}
with CompileMonitor() as before:
    shares = []
    report = loragate_kernels.warm_up("cpu", report=shares.append)
result["compiled"] = report.compiled
result["shares"] = shares
result["warmed_up"] = before.warmed_up
result["before"] = before.count
always = process_monitor()
assert process_monitor() is always
for name, launch in (("pair_stats", launch_pairs), ("lora_response", launch_products)):
    launched.clear(), variants.clear()
    with CompileMonitor() as after:
        # whatever the process takes for a number without a type
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            launch()
    result[name] = {"compiled": after.compiled, "launched": len(launched), "used": len(variants)}
with CompileMonitor() as again:
    result["again"] = loragate_kernels.warm_up("cpu").compiled
result["again_warmed_up"] = again.warmed_up
with CompileMonitor() as other:
    launch_pairs(config=PairStatsConfig(block=1024))
result["other"] = other.compiled
launch_pairs(config=PairStatsConfig(block=512))
result["other_after_stop"] = other.count
result["always"] = always.count
json.dump(result, sys.stdout)
"""

Played = dict[str, Any]

TYPES, HOW = ("float32", "bfloat16", "float16"), ("aligned", "scalar")
RANKS = (16, 32, 64, 128)
VARIANTS = {
    "pair_stats": [f"{dtype}:{how}" for dtype in TYPES for how in HOW] + ["fold"],
    "lora_response": [f"product:{rank}" for rank in RANKS] + ["fold"],
}


@pytest.fixture(scope="module")
def played(compile_apart: Callable[..., Played]) -> Played:
    return compile_apart(PLAYED)


def test_a_warm_up_compiles_every_variant_of_every_operation(played: Played) -> None:
    expected = [f"{name}:{each}" for name, variants in VARIANTS.items() for each in variants]
    assert played["compiled"] == expected
    assert len(played["warmed_up"]) == len(expected)
    assert played["before"] == 0


def test_a_warm_up_says_how_far_it_is(played: Played) -> None:
    shares = played["shares"]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert len(shares) == len(played["compiled"])


@pytest.mark.parametrize("operation", VARIANTS)
def test_no_launch_compiles_after_a_warm_up(operation: str, played: Played) -> None:
    assert played[operation]["compiled"] == []
    assert played[operation]["launched"] > len(VARIANTS[operation])


@pytest.mark.parametrize("operation", VARIANTS)
def test_nothing_is_compiled_that_no_launch_wants(operation: str, played: Played) -> None:
    assert played[operation]["used"] == len(VARIANTS[operation])


def test_a_second_warm_up_has_nothing_left_to_compile(played: Played) -> None:
    assert played["again"] == played["compiled"]
    assert played["again_warmed_up"] == []


def test_a_variant_that_was_not_warmed_up_is_counted_by_name(played: Played) -> None:
    assert len(played["other"]) == 6
    assert all("pair_stats_partial_kernel" in name for name in played["other"])


def test_a_monitor_that_was_stopped_counts_no_further(played: Played) -> None:
    assert played["other_after_stop"] == 6


def test_the_monitor_of_the_process_counts_on(played: Played) -> None:
    assert played["always"] == 12


def test_a_warm_up_where_kernels_cannot_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        warm_up("cpu")
    with pytest.raises(BackendUnavailableError, match="does not run on device 'meta'"):
        warm_up("meta")


@pytest.fixture
def operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module with two variants, whose `compile_key` does as it is told."""
    module = sys.modules["loragate_kernels.warm_up"]
    monkeypatch.setattr(module, "require_backend", lambda backend, device: "triton")
    monkeypatch.setattr(module, "is_interpreted", lambda: False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, compiling: str) -> None:
        (tmp_path / f"{name}.py").write_text(
            "done = []\n"
            "def compile_keys(device): return ['one', 'two']\n"
            f"def compile_key(key, device): {compiling}\n"
        )

    return write


def test_an_operation_joins_by_the_name_of_a_module(
    operation: Callable[[str, str], None],
) -> None:
    operation("another_operation", "done.append((key, device.type))")
    report = warm_up("cpu", operations=["another_operation"])
    assert report.compiled == ("one", "two")
    assert sys.modules["another_operation"].done == [("one", "cpu"), ("two", "cpu")]


def test_a_kernel_that_cannot_be_compiled_is_named(
    operation: Callable[[str, str], None],
) -> None:
    operation("broken_operation", "raise OSError('no assembler')")
    with pytest.raises(BackendUnavailableError, match="one cannot be compiled: no assembler"):
        warm_up("cpu", operations=["broken_operation"])


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
