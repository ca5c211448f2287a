"""Loops that do not end, and files that make the conversions of diffusers loop."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.loader_rules import diffusers_whole
from loragate_server.intake.reader import read_adapter
from loragate_server.time_limit import TimeLimitError, cpu_time_limit, watch_from_now_on
from testkit.tiny_models import shared_base, tiny_base
from testkit.waiting import at_most

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd


def test_a_loop_that_swallows_every_exception_is_ended() -> None:
    began = time.thread_time()
    with pytest.raises(TimeLimitError):
        _never_ends()
    assert time.thread_time() - began < at_most(1.0)


def _never_ends() -> None:
    with cpu_time_limit(0.2):
        while True:
            try:
                while True:
                    pass
            except Exception:  # as a careless conversion might
                continue


def test_what_ends_in_time_is_left_alone_and_nothing_comes_later() -> None:
    for _ in range(50):
        with cpu_time_limit(0.2):
            sum(range(100))
    began = time.thread_time()
    while time.thread_time() - began < 0.4:
        pass


def test_a_limit_that_is_reached_at_the_very_end_comes_at_once_or_never() -> None:
    ends = [_works_to_the_limit() for _ in range(40)]
    began = time.thread_time()
    while time.thread_time() - began < 0.1:
        pass
    assert len(ends) == 40


def _works_to_the_limit() -> bool:
    try:
        with cpu_time_limit(0.02):
            began = time.thread_time()
            while time.thread_time() - began < 0.03:
                pass
    except TimeLimitError:
        return True
    return False


def test_a_profiler_goes_on_after_a_limit() -> None:
    """CPython 3.11 stands still under a profiler once an exception was taken back."""
    work = (
        "from cProfile import Profile\n"
        "from loragate_server.time_limit import cpu_time_limit\n"
        "with cpu_time_limit(9.0): pass\n"
        "with Profile() as profile: print(sum(len('a') for _ in range(1000)))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", work],
        capture_output=True,
        text=True,
        timeout=at_most(30.0),
        check=True,
    )
    assert told.stdout.strip() == "1000"


def test_a_block_that_another_thread_frees_after_its_limit_ends_there_and_disturbs_nobody() -> None:
    limits = [cpu_time_limit(0.0)]

    def left_in_between() -> None:
        with suppress(TimeLimitError):
            limits[0].__enter__()
            while True:
                pass

    watched = threading.Thread(target=left_in_between)
    watched.start()
    watched.join()
    freeing = threading.Thread(target=limits.clear, daemon=True)
    freeing.start()
    freeing.join(at_most(2.0))
    assert not freeing.is_alive()


def test_time_that_a_thread_waits_does_not_count() -> None:
    with cpu_time_limit(0.1):
        time.sleep(0.4)


def test_once_the_watch_runs_no_limit_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_from_now_on()

    def refuse(self: threading.Thread) -> None:
        raise AssertionError("a thread was started, which may wait for ever")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(TimeLimitError):
        _never_ends()


def test_limits_of_several_threads_do_not_touch_each_other() -> None:
    def limited(seconds: float) -> str:
        try:
            with cpu_time_limit(seconds):
                began = time.thread_time()
                while time.thread_time() - began < 0.3:
                    pass
        except TimeLimitError:
            return "ended"
        return "done"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(limited, [0.1, 5.0, 0.1, 5.0]))
    assert found == ["ended", "done", "ended", "done"]


FLUX = "lora_unet_double_blocks_0_img_attn_proj"
TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def kohya(prefix: str, alpha: Tensor, rows: int, columns: int) -> dict[str, Tensor]:
    return {
        f"{prefix}.lora_down.weight": torch.ones(4, columns),
        f"{prefix}.lora_up.weight": torch.ones(rows, 4),
        f"{prefix}.alpha": alpha,
    }


@pytest.mark.parametrize("value", [-1.0, -1e-30, -1000.0])
@pytest.mark.parametrize("prefix", [FLUX, TEXT, "lora_unet_double_blocks_0_img_attn_qkv"])
@pytest.mark.parametrize("whole", [False, True])
def test_an_alpha_below_0_never_reaches_a_conversion_that_would_not_end(
    value: float, prefix: str, whole: bool, tmp_path: Path
) -> None:
    alpha = torch.tensor(int(value) or -1) if whole else torch.tensor(value)
    rows = {FLUX: (32, 32), TEXT: (128, 32)}.get(prefix, (96, 32))
    path = tmp_path / "adapter.safetensors"
    save_file(kohya(prefix, alpha, *rows), path)
    found = read_adapter(StoredFile("0" * 64, path.stat().st_size, path), shared_base("flux"))
    assert "does not end" in found.refused["diffusers"]
    # whoever loads it all the same is judged by what it says
    scales = {
        round(delta.scale, 6)
        for one in found.adapters
        for delta in one.deltas.values()
        if "a1111" in one.loaders
    }
    assert scales <= {round(float(alpha) / 4, 6)}


def test_a_conversion_that_loops_for_another_reason_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers_whole, "LIMIT_S", 0.2)
    base = tiny_base("sd")
    real = type(base).convert_keys
    calls = []

    def endless(self, tensors):  # type: ignore[no-untyped-def]
        calls.append(len(tensors))
        if any(float(t.flatten()[0]) == 77.0 for n, t in tensors.items() if n.endswith("alpha")):
            while True:
                pass
        return real(self, tensors)

    monkeypatch.setattr(type(base), "convert_keys", endless)
    path = tmp_path / "adapter.safetensors"
    save_file(
        kohya(
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
            torch.tensor(77.0),
            64,
            64,
        ),
        path,
    )
    found = read_adapter(StoredFile("0" * 64, path.stat().st_size, path), base)
    [(code, sentence)] = found.doubts
    assert code == "loader_unknown"
    assert "diffusers" in sentence
    assert "its conversion takes too long" in sentence
    assert calls
