"""The public surface, what importing costs, and what the wheel weighs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import loragate
from loragate import AsyncAuditClient, AuditClient
from loragate.aio import AsyncConcepts
from loragate.client import Concepts
from testkit.waiting import busyness

ROOT = Path(__file__).parents[2]

SURFACE = [
    "SERVICE_UNAVAILABLE",
    "AdapterBlocked",
    "AdapterKind",
    "AdapterReference",
    "AsyncAuditClient",
    "AuditClient",
    "AuditError",
    "AuditOptions",
    "AuditResult",
    "Audited",
    "AuditedAdapter",
    "Cancelled",
    "Concept",
    "ConceptRole",
    "DeadlineExceeded",
    "Digests",
    "Exhausted",
    "Finding",
    "Internal",
    "InvalidAdapter",
    "InvalidRequest",
    "KeyCoverage",
    "LeftOut",
    "ListOptions",
    "MeasureKind",
    "Measured",
    "Mode",
    "NotFound",
    "PermissionDenied",
    "Progress",
    "Reason",
    "Remedy",
    "RetryPolicy",
    "Severity",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Verdict",
    "fail_open_total",
]


def test_the_public_names_are_these() -> None:
    assert loragate.__all__ == SURFACE
    assert dir(loragate) == sorted(SURFACE)
    for name in SURFACE:
        assert getattr(loragate, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = loragate.nothing


@pytest.mark.parametrize(
    ("sync", "asynchronous"), [(AuditClient, AsyncAuditClient), (Concepts, AsyncConcepts)]
)
def test_both_clients_have_the_same_methods_with_the_same_arguments(
    sync: type, asynchronous: type
) -> None:
    def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name: [
                (p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()
            ]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    ours, theirs = methods(sync), methods(asynchronous)
    assert ours.keys() == theirs.keys()
    for name, parameters in ours.items():
        if sync is AuditClient or name != "__init__":
            assert parameters == theirs[name], name


def test_importing_takes_less_than_150_ms_and_no_torch() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import loragate;"
        "took = time.perf_counter() - began;"
        "heavy = {'torch', 'numpy', 'grpc', 'google.protobuf'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    assert min(times) < 0.150 * busyness(), times


def test_the_clients_and_the_fake_server_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, loragate, loragate.testing, loragate.cli.commands;"
        "loragate.AuditClient, loragate.AsyncAuditClient;"
        "heavy = {'torch', 'numpy', 'diffusers', 'safetensors'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_wheel_is_small_and_holds_what_the_sdk_reads(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--disable-pip-version-check", "--no-index"),
            *("--wheel-dir", str(tmp_path), str(_copy_of_client(tmp_path / "client"))),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob(f"loragate-{loragate.__version__}-*.whl")
    assert wheel.stat().st_size < 300_000
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "loragate/py.typed",
        "loragate/v1/audit_pb2.py",
        "loragate/v1/audit_pb2.pyi",
        "loragate/v1/audit_grpc_service_config.json",
        "loragate/cli/__init__.py",
        "loragate/testing/fake_server.py",
        "loragate/integrations/diffusers.py",
    ):
        assert needed in names


def _copy_of_client(target: Path) -> Path:
    """The tracked sources, so that building leaves nothing behind beside them."""
    import shutil

    return Path(
        shutil.copytree(
            ROOT / "client",
            target,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"),
        )
    )
