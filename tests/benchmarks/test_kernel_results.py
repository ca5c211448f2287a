"""Mixes, targets, limits and results of the kernel benchmarks; and a rehearsal of the GPU run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import hardware, mixes, timing
from benchmarks.kernels.plot import draw
from benchmarks.kernels.record import (
    Check,
    Row,
    Run,
    from_json,
    load,
    newest,
    render,
    save,
    to_json,
)
from benchmarks.kernels.targets import BY_ID, TARGETS, Outcome, table
from testkit.waiting import at_most

ROW = Row("pair_stats", "ours", "mix", "bfloat16", "graph", 10.0, 9.0, 11.0, 7, 8, 9, 0.8, 0.5)


def run_on(device: str, when: str, mode: str = "gpu") -> Run:
    return Run(
        mode,
        {"device": device, "measured_at": when},
        {"read-only sum": 1.6},
        [ROW],
        [Outcome("T1", 95.0, "how"), Outcome("T6a", None)],
        [Check("rows", None, "no device")],
        ["a note"],
    )


def test_the_mixes_are_those_of_the_models() -> None:
    assert mixes.models() == ("sd15", "sdxl", "sd3", "flux")
    sizes = {name: mixes.mix(name).pair_bytes(torch.bfloat16) for name in mixes.models()}
    assert sizes == {
        "sd15": 94_371_840,
        "sdxl": 613_416_960,
        "sd3": 603_979_776,
        "flux": 2_868_903_936,
    }
    assert len(mixes.mix("sdxl", 2).shapes) == 87
    assert mixes.mix("sdxl", 2).shapes[0] == (2, 320, 128, 128)
    assert sum(one.count for one in mixes.projections("sdxl")) == 560


def test_pairs_are_near_each_other_and_the_same_for_a_seed() -> None:
    shapes = [(2, 300, 50)]
    [(base, adapted)] = mixes.random_pairs(shapes, torch.float32, torch.device("cpu"), seed=1)
    [(again, _)] = mixes.random_pairs(shapes, torch.float32, torch.device("cpu"), seed=1)
    assert torch.equal(base, again)
    change = (adapted - base).norm() / base.norm()
    assert float(change) == pytest.approx(mixes.CHANGE, rel=0.05)


def test_more_than_the_datasheet_is_refused() -> None:
    peak = hardware.datasheet_gbps("NVIDIA H100 80GB HBM3")
    assert peak == 3352
    assert hardware.gbps(3_000_000, 1.0, peak) == 3000
    with pytest.raises(hardware.ImplausibleError, match="3906 GB/s is more than the 3352"):
        hardware.gbps(3_906_000, 1.0, peak)
    assert hardware.printable_gbps(3_906_000, 1.0, peak) is None
    assert hardware.datasheet_gbps("an unknown part") is None


def test_inputs_rotate_over_more_than_three_caches() -> None:
    cache = hardware.l2_bytes(torch.device("cpu"))
    for size in (1, cache // 7, cache, 3 * cache, 100 * cache):
        count = hardware.copies_needed(size, torch.device("cpu"))
        assert count >= 2
        assert (count - 1) * size >= 3 * cache or count == 2


def test_timings_are_medians_with_their_spread() -> None:
    found = timing.summarise([5.0, 1.0, 2.0, 3.0, 4.0], "wall")
    assert (found.median_us, found.samples, found.how) == (3.0, 5, "wall")
    assert found.p20_us < found.median_us < found.p80_us
    assert found.spread == pytest.approx((found.p80_us - found.p20_us) / 3)


def test_what_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="not done within"), timing.time_limit(0.05):
        time.sleep(20)
    assert time.monotonic() - began < at_most(4)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        ("T1", 97.0, "ahead"),
        ("T1", 92.0, "met"),
        ("T1", 91.9, "missed"),
        ("T8a", 2.0, "ahead"),
        ("T8a", 8.1, "missed"),
        ("T10", 0, "met"),
        ("T10", 1, "missed"),
        ("T12", 3, "missed"),
        ("T4", math.nan, "missed"),
        ("T6a", None, "not measured"),
    ],
)
def test_a_target_judges(target: str, value: float | None, verdict: str) -> None:
    assert BY_ID[target].judge(value) == verdict


def test_the_table_has_every_target_measured_or_not() -> None:
    lines = table([Outcome("T1", 95.25, "a | b")]).splitlines()
    assert len(lines) == 2 + len(TARGETS)
    assert "| 95.2 % | met | a / b |" in lines[2]
    assert all("| – | not measured |" in line for line in lines[3:])
    assert {target.id.rstrip("ab") for target in TARGETS} == {
        f"T{n}" for n in range(1, 13) if n != 11
    }


def test_a_run_survives_json(tmp_path: Path) -> None:
    run = run_on("H100", "2026-01-01")
    assert from_json(json.loads(json.dumps(to_json(run)))) == run
    path = tmp_path / "deep" / "kernels.json"
    save(run, path)
    run.notes.append("more")
    save(run, path)
    save(run_on("H200", "2026-01-02"), path)
    save(run_on("H100", "2026-01-03"), path)
    assert [one.notes for one in load(path)] == [["a note", "more"], ["a note"], ["a note"]]
    assert [one.facts["measured_at"] for one in newest(load(path))] == ["2026-01-03", "2026-01-02"]


def test_a_run_is_rendered_with_its_misses() -> None:
    text = render(run_on("H100", "2026-01-01"))
    assert "| pair_stats | mix | bfloat16 | ours | 10.0 µs | 20% | graph | 0.8 | 50% |" in text
    assert "Ceilings, measured in the same run: read-only sum 2 GB/s." in text
    assert "| rows | not run | no device |" in text
    assert "- a note" in text
    assert "the numbers mean nothing" in render(run_on("H100", "2026-01-01", "rehearsal"))


def test_pictures_are_drawn_of_all_but_rehearsals(tmp_path: Path) -> None:
    runs = [run_on("NVIDIA H100 80GB HBM3", "1"), run_on("x", "2", "cpu")]
    runs.append(run_on("x", "3", "rehearsal"))
    drawn = draw(runs, tmp_path)
    assert [path.name for path in drawn] == ["kernels-h100-80gb-hbm3.png", "kernels-cpu.png"]
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_every_gpu_measure_runs_in_a_rehearsal(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", "rehearse", "--results", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = load(path)
    assert [note for note in run.notes if not note.startswith("read-only sum")] == []
    assert all(check.holds is not False for check in run.checks)
    measured = {outcome.id for outcome in run.outcomes if outcome.value is not None}
    # the compiler is left out, T2 belongs to one part, and the interpreter compiles nothing
    assert {target.id for target in TARGETS} - measured == {"T2", "T6a", "T6b", "T9a"}
    [exact] = [outcome for outcome in run.outcomes if outcome.id == "T10"]
    assert exact.value == 0
    assert next(one.value for one in run.outcomes if one.id == "T12") == 2
