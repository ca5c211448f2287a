"""What the compiler makes of the kernels for three generations of GPUs; needs none of them.

Compiled in a process of its own, whose Triton does not interpret, whatever this one does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

COMPILE = """
import json, pathlib, subprocess, sys
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from loragate_kernels.pair_stats import compilation, kernel, launch
from loragate_kernels.pair_stats.config import CONFIG_DTYPES, choose_config

POINTERS = {"p_chunks": "*i64", "p_segments": "*i64", "p_partial": "*fp32", "p_out": "*fp64"}
NEWEST_FIRST = (121, 120, 110, 103, 101, 100)
tool = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

def compiled(function, options, architecture):
    constants = {name: options[name] for name in function.arg_names if name in options}
    options = {name: value for name, value in options.items() if name not in constants}
    signature = {name: POINTERS.get(name, "i32") for name in function.arg_names}
    signature |= {name: "constexpr" for name in constants}
    source = ASTSource(function, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)

def resources(cubin):
    if not tool.exists():
        return None
    path = pathlib.Path(sys.argv[1], "kernel.cubin")
    path.write_bytes(cubin)
    command = [str(tool), "-res-usage", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

def variants(architecture):
    choice = choose_config(f"sm_{architecture}")
    for dtype in CONFIG_DTYPES:
        for aligned in (True, False):
            key = compilation.CompileKey(dtype, aligned, choice.by_dtype[dtype])
            options = launch.partial_options(dtype, aligned, key.config)
            yield str(key), kernel.pair_stats_partial_kernel, options
    fold = compilation.CompileKey(None, False, choice.fold)
    yield str(fold), kernel.pair_stats_fold_kernel, launch.fold_options(choice.fold)

def newest():
    for architecture in NEWEST_FIRST:
        try:
            for _, function, options in variants(architecture):
                compiled(function, options, architecture)
        except Exception as error:
            print(architecture, repr(error)[:200], file=sys.stderr)
        else:
            return architecture
    raise SystemExit("no target newer than sm_90")

made = {}
for architecture in (80, 90, newest()):
    for name, function, options in variants(architecture):
        one = compiled(function, options, architecture)
        made[f"sm_{architecture}:{name}"] = (one.asm["ptx"], resources(one.asm["cubin"]))
json.dump(made, sys.stdout)
"""

PARTIAL = [
    f"pair_stats:{dtype}:{how}"
    for dtype in ("float32", "bfloat16", "float16")
    for how in ("aligned", "scalar")
]
GENERATIONS = ("sm_80", "sm_90", "newest")


@pytest.fixture(scope="module")
def made(
    compile_apart: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str | None]]:
    """PTX, and what the assembler says of registers and stack, by target and variant."""
    found = compile_apart(COMPILE, str(tmp_path_factory.mktemp("cubin")))
    targets = list(dict.fromkeys(name.split(":")[0] for name in found))
    assert len(targets) == 3
    named = dict(zip(targets, GENERATIONS, strict=True))
    return {
        f"{named[name.split(':')[0]]}:{name.partition(':')[2]}": (ptx, usage)
        for name, (ptx, usage) in found.items()
    }


def loops(ptx: str) -> list[str]:
    """The bodies of all loops: from a label to the jump that goes back to it."""
    bodies = []
    for label in re.finditer(r"^(\$L__BB\w+):", ptx, re.MULTILINE):
        back = re.search(rf"\bbra(\.uni)?\s+\{label[1]};", ptx[label.end() :])
        if back:
            bodies.append(ptx[label.end() : label.end() + back.start()])
    return bodies


def test_every_variant_compiles_for_every_generation(
    made: dict[str, tuple[str, str | None]],
) -> None:
    expected = [f"{g}:{name}" for g in GENERATIONS for name in (*PARTIAL, "pair_stats:fold")]
    assert sorted(made) == sorted(expected)
    for name, (ptx, _) in made.items():
        target = re.search(r"^\.target sm_(\d+)", ptx, re.MULTILINE)
        assert target
        generation = name.partition(":")[0]
        assert generation == f"sm_{target[1]}" or (generation == "newest" and int(target[1]) > 90)
        assert "st.global" in ptx


def test_nothing_is_added_in_an_order_that_chance_decides(
    made: dict[str, tuple[str, str | None]],
) -> None:
    for ptx, _ in made.values():
        assert not re.search(r"^\s*(@\S+\s+)?(atom|red)\.", ptx, re.MULTILINE)


def test_nothing_is_spilled(made: dict[str, tuple[str, str | None]]) -> None:
    for name, (ptx, usage) in made.items():
        assert ".local" not in ptx
        if usage is not None:  # the wheel of this Triton came with the tool
            found = re.findall(r"REG:\d+ STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
            assert found == [("0", "0")], f"{name}: {usage}"


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("variant", PARTIAL)
def test_stage_one_computes_in_float32(
    variant: str, generation: str, made: dict[str, tuple[str, str | None]]
) -> None:
    assert ".f64" not in made[f"{generation}:{variant}"][0]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_stage_two_sums_in_float64(
    generation: str, made: dict[str, tuple[str, str | None]]
) -> None:
    ptx, _ = made[f"{generation}:pair_stats:fold"]
    assert "add.f64" in ptx or "add.rn.f64" in ptx


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("variant", PARTIAL)
def test_the_main_loop_reads_aligned_rows_sixteen_bytes_at_a_time(
    variant: str, generation: str, made: dict[str, tuple[str, str | None]]
) -> None:
    ptx, _ = made[f"{generation}:{variant}"]
    reading = [body for body in loops(ptx) if "ld.global" in body]
    # only the loop that counts what is not finite, which good data never enters, reads by a mask
    guarded = [body for body in reading if re.search(r"@%p\d+\s+ld\.global", body)]
    assert len(guarded) == 1
    main = [body for body in reading if body not in guarded]
    wide = sorted(len(re.findall(r"ld\.global\S*\.v4\.b32", body)) for body in main)
    every = sorted(len(re.findall(r"ld\.global", body)) for body in main)
    # eight elements of each of the two operands per thread; two blocks at once, then one
    if variant.endswith("aligned"):
        once = 2 if "16" in variant else 4
        assert wide == every == [once, 2 * once]
    else:
        assert wide == [0, 0]
        assert every == [16, 32]
