"""A backend is what was asked for, or an error that says what is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from loragate_kernels import BackendUnavailableError, backend, pair_stats

PAIR = (torch.zeros(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize("name", ["cuda", "", "Reference", "auto"])
def test_an_unknown_backend_is_refused_and_the_known_ones_are_named(name: Any) -> None:
    with pytest.raises(ValueError, match="known are reference, triton"):
        pair_stats([PAIR], backend=name)


def test_triton_on_a_cpu_without_the_interpreter_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1 before triton"):
        pair_stats([PAIR], backend="triton")


def test_triton_that_is_not_installed_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="needs the package triton"):
        backend.require_backend("triton", torch.device("cpu"))


def test_the_interpreter_cannot_follow_cuda_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_interpreted", lambda: True)
    with pytest.raises(BackendUnavailableError, match="unset TRITON_INTERPRET"):
        backend.require_backend("triton", torch.device("cuda"))


def test_triton_does_not_run_on_other_devices() -> None:
    with pytest.raises(BackendUnavailableError, match="does not run on device 'meta'"):
        backend.require_backend("triton", torch.device("meta"))


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_the_reference_runs_everywhere(device: str) -> None:
    assert backend.require_backend("reference", torch.device(device)) == "reference"


def test_the_reference_never_loads_triton() -> None:
    script = (
        "import sys, torch; from loragate_kernels import pair_stats; "
        "known = set(sys.modules); "
        "pair_stats([(torch.zeros(1, 4), torch.ones(1, 4))], backend='reference'); "
        "print([name for name in set(sys.modules) - known if name.startswith('triton')], "
        "'loragate_kernels.pair_stats.kernel' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["[]", "False"]
