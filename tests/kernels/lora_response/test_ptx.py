"""What the compiler makes of the kernels for several GPUs; needs none.

Compiled in a process of its own, whose Triton does not interpret, whatever this one does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

ARCHITECTURES = (80, 90, 100)

COMPILE = """
import json, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from loragate_kernels.lora_response import kernel, launch
from loragate_kernels.lora_response.config import DEFAULT_CONFIG as config, RANK_BLOCKS

def compiled(function, pointers, options, architecture):
    options = dict(options)
    launched = {name: options.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    signature = {name: pointers.get(name, "i32") for name in function.arg_names}
    signature |= {name: "constexpr" for name in options}
    # the allocator of PyTorch aligns every tensor, and Triton finds that out at the launch
    aligned = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(function, signature, constexprs=options, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launched)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, check=True, text=True
        ).stdout
    [stack] = re.findall(r"STACK:(\\d+)", usage)
    [registers] = re.findall(r"REG:(\\d+)", usage)
    return {"ptx": made.asm["ptx"], "stack": int(stack), "registers": int(registers)}

made = {}
for architecture in map(int, sys.argv[1:]):
    for rank in RANK_BLOCKS:
        made[f"sm_{architecture}:product:{rank}"] = compiled(
            kernel.lora_response_product_kernel,
            {"p_table": "*i64", "p_left": "*fp32", "p_right": "*fp32", "p_partial": "*fp32"},
            launch.product_options(rank, config),
            architecture,
        )
    made[f"sm_{architecture}:fold"] = compiled(
        kernel.lora_response_fold_kernel,
        {"p_segments": "*i64", "p_partial": "*fp32", "p_out": "*fp64"},
        launch.fold_options(config),
        architecture,
    )
json.dump(made, sys.stdout)
"""

STAGE_ONE = [
    f"sm_{architecture}:product:{rank}"
    for architecture in ARCHITECTURES
    for rank in (16, 32, 64, 128)
]
FOLDS = [f"sm_{architecture}:fold" for architecture in ARCHITECTURES]

Variants = dict[str, Any]


@pytest.fixture(scope="module")
def made(compile_apart: Callable[..., Variants]) -> Variants:
    """PTX, bytes of stack and registers, by variant."""
    return compile_apart(COMPILE, *map(str, ARCHITECTURES))


def test_every_variant_compiles_for_every_architecture(made: Variants) -> None:
    assert sorted(made) == sorted([*STAGE_ONE, *FOLDS])
    for name, variant in made.items():
        assert f".target {name.partition(':')[0]}" in variant["ptx"]
        assert "st.global" in variant["ptx"]


def test_nothing_is_added_in_an_order_that_chance_decides(made: Variants) -> None:
    for variant in made.values():
        assert not re.search(r"^\s*(@\S+\s+)?(atom|red)\.", variant["ptx"], re.MULTILINE)


@pytest.mark.parametrize("name", STAGE_ONE)
def test_stage_one_computes_in_full_float32_and_spills_nothing(name: str, made: Variants) -> None:
    ptx = made[name]["ptx"]
    assert ".f64" not in ptx
    assert "tf32" not in ptx
    assert not re.search(r"\b(wgmma|mma|tcgen05)\.", ptx)
    assert ".local" not in ptx
    assert made[name]["stack"] == 0


@pytest.mark.parametrize("name", FOLDS)
def test_stage_two_sums_in_float64(name: str, made: Variants) -> None:
    assert re.search(r"add\.(rn\.)?f64", made[name]["ptx"])
    assert made[name]["stack"] == 0


@pytest.mark.parametrize("name", STAGE_ONE)
def test_products_are_read_sixteen_bytes_at_a_time(name: str, made: Variants) -> None:
    ptx = made[name]["ptx"]
    wide = len(re.findall(r"ld\.global\S*\.v4\.b32", ptx))
    narrow = len(re.findall(r"ld\.global\S*\.b32", ptx)) - wide
    # 2048 elements on each side, 128 threads
    assert (wide, narrow) == (8, 0)
