"""Kernels are compiled while the server starts: real models and probes, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from loragate_server.app.startup import prepare_kernels
from loragate_server.config.schema import EMBEDDED_LIBRARY, StartError
from testkit.waiting import busyness

# Two base models on one device. `warm_up` is the real one; what is wrapped around it notes the
# calls. The monitor knows no number where kernels are interpreted; at the end it is made to forget
# that they are, as on a GPU.
SERVE = """
import json, sys
from pathlib import Path
import torch
from loragate_kernels import compile_monitor
from loragate_server.app import served, startup
from loragate_server.config.schema import EMBEDDED_PIPELINE, BaseModelEntry, Config
from loragate_server.app.folders import served_library
from loragate_server.metrics.metrics import Metrics

calls, stages = [], []
compile_all = startup.warm_up

def warm_up(device, **options):
    done = compile_all(device, **options)
    calls.append({"device": str(device), "interpreted": done.interpreted, "after": stages[-1]})
    return done

startup.warm_up = warm_up
bases = tuple(BaseModelEntry(name=name, folder=EMBEDDED_PIPELINE) for name in ("one", "two"))
config = Config(
    state_dir=Path(sys.argv[1]),
    library=Path(sys.argv[2]),
    kernel_backend=sys.argv[3],
    base_models=bases,
)
bases_served = startup.serve_bases(
    config,
    served_library(config),
    lambda stage, fraction: stages.append(stage),
)
metrics = Metrics()
served.describe(config, bases_served, metrics)
name = "loragate_kernel_compilations_total"
interpreted = metrics.registry.get_sample_value(name)
compile_monitor.is_interpreted = lambda: False
json.dump({
    "calls": calls,
    "stages": list(dict.fromkeys(stages)),
    "count": [interpreted, metrics.registry.get_sample_value(name)],
    "monitors": compile_monitor.process_monitor.cache_info().currsize,
}, sys.stdout)
"""

Started = dict[str, Any]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few concepts as a library may have: nothing of them is on disk, so probes are built."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(EMBEDDED_LIBRARY, folder, dirs_exist_ok=True)
    file = folder / "library.yaml"
    text = yaml.safe_load(file.read_text())
    forbidden = [one for one in text["concepts"] if one["role"] == "forbidden"]
    neutral = [one for one in text["concepts"] if one["role"] == "neutral"]
    file.write_text(yaml.safe_dump(text | {"concepts": forbidden[:1] + neutral[:8]}))
    return folder


def serve(state: Path, library: Path, backend: str) -> Started:
    environment = {name: each for name, each in os.environ.items() if "LORAGATE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(state), str(library), backend],
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=120 * busyness(),
    )
    assert done.returncode == 0, done.stderr
    result: Started = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def with_triton(state: Path, library: Path) -> Started:
    return serve(state, library, "triton")


@pytest.fixture(scope="module")
def with_reference(state: Path, library: Path, with_triton: Started) -> Started:
    """Later, so that the probes of the other are there already: they are the same."""
    return serve(state, library, "reference")


def test_kernels_are_compiled_once_for_a_device_before_its_first_probe(
    with_triton: Started,
) -> None:
    called = {"device": "cpu", "interpreted": True, "after": "compiling kernels"}
    assert with_triton["calls"] == [called]
    assert with_triton["stages"] == [
        "loading one",
        "compiling kernels",
        "probes of one",
        "gradients of one",
        "loading two",  # the same model: its probes are there already
    ]


def test_without_triton_nothing_is_compiled(with_reference: Started) -> None:
    assert with_reference["calls"] == []
    assert "compiling kernels" not in with_reference["stages"]


def test_late_compilations_are_counted_with_triton_alone(
    with_triton: Started, with_reference: Started
) -> None:
    assert with_triton["count"] == [None, 0.0]
    assert with_triton["monitors"] == 1
    assert with_reference["count"] == [None, None]
    assert with_reference["monitors"] == 0


def test_a_device_that_kernels_cannot_run_on_ends_the_start() -> None:
    with pytest.raises(StartError, match=r"kernel_backend: .* does not run on device 'meta'"):
        prepare_kernels("triton", torch.device("meta"))
