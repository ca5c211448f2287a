"""Breaks copies of the kernels in known ways and counts the tests that notice.

    .venv/bin/python scripts/kernel_mutations.py

Each mutation is one wrong change of a line. It is made in a temporary copy of kernels/, and the
interpreted tests of `pair_stats` run against that copy. The unchanged copy must pass them all, and
every mutation must fail at least one; otherwise this exits with 1. Takes about a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNEL = "loragate_kernels/pair_stats/kernel.py"
TABLE = "loragate_kernels/_pointer_table.py"
TESTS = "tests/kernels/pair_stats/interpreted"
TIMEOUT_S = 120
WORKERS = 2

CONFTEST = """
import pathlib
import hypothesis
import loragate_kernels

# what is tested has to be the copy, not what is installed
assert pathlib.Path(loragate_kernels.__file__).is_relative_to({folder!r})
# one counterexample is enough; looking for the smallest takes most of the time
phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("quick", phases=phases, derandomize=True, database=None)
hypothesis.settings.load_profile("quick")
"""


@dataclass(frozen=True)
class Mutation:
    """Every occurrence of `old` in `file` becomes `new`."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation("the tail of a chunk is dropped", KERNEL, "if full < numel:", "if full > numel:"),
    Mutation("a tail reads beyond its end", KERNEL, "full + o_block < numel", "o_block >= 0"),
    Mutation("base is summed for adapted", KERNEL, "tl.sum(b_b * b_b, 1)", "tl.sum(b_a * b_a, 1)"),
    Mutation(
        "the last chunk of a row is skipped",
        KERNEL,
        "+ i_segment).to(tl.int32)",
        "+ i_segment).to(tl.int32) - 1",
    ),
    Mutation(
        "the fold forgets all but its last block",
        KERNEL,
        "b_dd += tl.load(p, mask",
        "b_dd = tl.load(p, mask",
    ),
    Mutation(
        "the fold takes a sum for the maximum", KERNEL, "tl.max(b_max, 0))", "tl.sum(b_max, 0))"
    ),
    Mutation(
        "a launch begins at the first chunk of all",
        KERNEL,
        "first_chunk.to(tl.int64) + tl.program_id(0)",
        "first_chunk.to(tl.int64) * 0 + tl.program_id(0)",
    ),
    Mutation(
        "chunk numbers are cut to 32 bits",
        KERNEL,
        "first_chunk.to(tl.int64) + tl.program_id(0)",
        "first_chunk.to(tl.int32) + tl.program_id(0)",
    ),
    Mutation(
        "non-finite adapted elements are not counted",
        KERNEL,
        '& (tl.abs(b_b) < float("inf"))',
        '& (b_b < float("inf"))',
    ),
    Mutation(
        "16-bit elements are not widened",
        KERNEL,
        "tl.reshape(b_a.to(tl.float32),",
        "tl.reshape(b_a,",
    ),
    Mutation(
        "the first row of a pair is skipped",
        TABLE,
        "base + row * base_step",
        "base + row.clip(min=1) * base_step",
    ),
)


def run_tests(copy: Path) -> tuple[list[str], str]:
    """Names of the tests that fail against the copy, and what pytest said; raises if none ran."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", TESTS],
        cwd=copy,
        env={
            **os.environ,
            "PYTHONPATH": str(copy / "kernels"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TRITON_INTERPRET": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode < 0:
        during = re.findall(r" in (test_\w+)", done.stderr)[:1]
        return during or ["(an unknown one)"], f"the process died of signal {-done.returncode}"
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(\w+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or bool(failed) != (done.returncode == 1):
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return list(dict.fromkeys(failed)), done.stdout.strip().splitlines()[-1]


def make_copy(folder: Path) -> Path:
    """Kernels, their tests and pytest's settings, in `folder`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "kernels", folder / "tests" / "kernels", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests" / "conftest.py").write_text(CONFTEST.format(folder=str(folder)))
    return folder


def try_out(mutation: Mutation | None) -> tuple[list[str], str]:
    """As `run_tests`, against a fresh copy with `mutation` in it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = make_copy(Path(folder).resolve())
        if mutation is not None:
            path = copy / "kernels" / mutation.file
            source = path.read_text()
            if mutation.old not in source:
                raise RuntimeError(f"{mutation.name}: {mutation.file} lacks {mutation.old!r}")
            path.write_text(source.replace(mutation.old, mutation.new))
        try:
            return run_tests(copy)
        except subprocess.TimeoutExpired:
            return ["(the tests never ended)"], f"after {TIMEOUT_S} s"


def main() -> int:
    """0 if the unchanged kernels pass and every mutation is caught."""
    began = time.monotonic()
    caught = 0
    with ThreadPoolExecutor(WORKERS) as workers:
        unchanged, *results = workers.map(try_out, [None, *MUTATIONS])
    failed, summary = unchanged
    if failed:
        print(f"the unchanged kernels fail ({summary}): {', '.join(failed)}")
        return 1
    print(f"unchanged: {summary}")
    for mutation, (failed, summary) in zip(MUTATIONS, results, strict=True):
        caught += bool(failed)
        print(f"{'caught' if failed else 'SURVIVED'}: {mutation.name} ({summary})")
        for name in failed:
            print(f"    {name}")
    print(f"{caught} of {len(MUTATIONS)} mutations caught in {time.monotonic() - began:.0f} s")
    return 0 if caught == len(MUTATIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
