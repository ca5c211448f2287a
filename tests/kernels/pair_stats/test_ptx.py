"""What the compiler makes of the kernels for sm_90; needs no GPU.

Compiled in processes of their own, whose Triton does not interpret, whatever this one does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

COMPILE = """
import json, sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from loragate_kernels.pair_stats.config import DEFAULT_CONFIG as config
from loragate_kernels.pair_stats.kernel import pair_stats_fold_kernel, pair_stats_partial_kernel

def ptx(kernel, pointers, constants, num_warps):
    signature = {name: pointers.get(name, "i32") for name in kernel.arg_names}
    signature |= {name: "constexpr" for name in constants}
    source = ASTSource(kernel, signature, constexprs=constants)
    options = {"num_warps": num_warps, "enable_fp_fusion": config.enable_fp_fusion}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return made.asm["ptx"]

made = {}
for dtype in (tl.float32, tl.bfloat16, tl.float16):
    for aligned in (True, False):
        made[f"{dtype}:{'aligned' if aligned else 'scalar'}"] = ptx(
            pair_stats_partial_kernel,
            {"p_chunks": "*i64", "p_partial": "*fp32"},
            {"DTYPE": dtype, "ALIGNED": aligned, "BLOCK": config.block},
            config.num_warps,
        )
made["fold"] = ptx(
    pair_stats_fold_kernel,
    {"p_segments": "*i64", "p_partial": "*fp32", "p_out": "*fp64"},
    {"FOLD_BLOCK": config.fold_block},
    1,
)
json.dump(made, sys.stdout)
"""

PARTIAL = [f"{dtype}:{how}" for dtype in ("fp32", "bf16", "fp16") for how in ("aligned", "scalar")]


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PTX by variant."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    # The kernels are compiled with the setting of their configuration; this stills a warning.
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, str] = json.loads(done.stdout)
    return made


def test_every_variant_compiles(ptx: dict[str, str]) -> None:
    assert sorted(ptx) == sorted([*PARTIAL, "fold"])
    for text in ptx.values():
        assert ".target sm_90" in text
        assert "st.global" in text


def test_nothing_is_added_in_an_order_that_chance_decides(ptx: dict[str, str]) -> None:
    for text in ptx.values():
        assert not re.search(r"^\s*(@\S+\s+)?(atom|red)\.", text, re.MULTILINE)


@pytest.mark.parametrize("variant", PARTIAL)
def test_stage_one_computes_in_float32_and_spills_nothing(
    variant: str, ptx: dict[str, str]
) -> None:
    assert ".f64" not in ptx[variant]
    assert ".local" not in ptx[variant]


def test_stage_two_sums_in_float64(ptx: dict[str, str]) -> None:
    assert "add.f64" in ptx["fold"] or "add.rn.f64" in ptx["fold"]


@pytest.mark.parametrize("variant", PARTIAL)
def test_aligned_rows_are_read_sixteen_bytes_at_a_time(variant: str, ptx: dict[str, str]) -> None:
    wide = len(re.findall(r"ld\.global\S*\.v4\.b32", ptx[variant]))
    assert wide == (0 if variant.endswith("scalar") else 2 if "16" in variant else 4)
