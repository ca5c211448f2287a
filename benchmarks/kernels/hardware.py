"""What the numbers were measured on, and which numbers are impossible there."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

DATASHEET_GBPS = (
    ("H100 80GB HBM3", 3352),  # SXM
    ("H100 NVL", 3938),
    ("H100 PCIe", 2039),
    ("GH200 144G", 4900),
    ("GH200 480GB", 4023),
    ("GH200 120GB", 4023),
    ("H200", 4800),
    ("B200", 8000),
    ("A100-SXM4-80GB", 2039),
    ("A100-SXM4-40GB", 1555),
    ("A100 80GB PCIe", 1935),
    ("A100-PCIE-40GB", 1555),
    ("L40S", 864),
    ("A10G", 600),
    ("NVIDIA A10", 600),
    ("NVIDIA L4", 300),
    ("RTX 4090", 1008),
)
"""Part of a device's name to the memory bandwidth in its datasheet; the first match counts."""

QUERIES = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "temperature.gpu",
)


class ImplausibleError(ValueError):
    """A bandwidth beyond the datasheet: bytes were miscounted, or came from a cache."""


def datasheet_gbps(name: str) -> float | None:
    """The memory bandwidth of the device called `name`, or None where it is not listed."""
    return next((float(peak) for part, peak in DATASHEET_GBPS if part in name), None)


def gbps(moved_bytes: int, microseconds: float, peak: float | None) -> float:
    """Gigabytes (10^9) per second.

    Raises:
        ImplausibleError: it would be more than `peak`.
    """
    value = moved_bytes / microseconds / 1e3
    if peak is not None and value > peak:
        raise ImplausibleError(f"{value:.0f} GB/s is more than the {peak:.0f} of the datasheet")
    return value


def printable_gbps(moved_bytes: int, microseconds: float, peak: float | None) -> float | None:
    """The same, None instead of the error: what must not be printed is not kept either."""
    try:
        return gbps(moved_bytes, microseconds, peak)
    except ImplausibleError:
        return None


def l2_bytes(device: torch.device) -> int:
    """The last cache before memory: from the device, or 32 MiB for a CPU, which will not say."""
    if device.type != "cuda":
        return 32 << 20
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def copies_needed(case_bytes: int, device: torch.device) -> int:
    """How many sets of inputs to rotate over, so that none is in the cache when its turn comes.

    More than three times the cache in all; two at least, because the end of a set larger than
    the cache would be found there again.
    """
    return max(2, -(-3 * l2_bytes(device) // max(1, case_bytes)) + 1)


def facts(device: torch.device) -> dict[str, str]:
    """Device, versions, clocks and time."""
    told = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": _cpu_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "threads": str(torch.get_num_threads()),
        "load_before": f"{os.getloadavg()[0]:.1f}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {
            "device": properties.name,
            "host_cpu": _cpu_name(),
            "cuda": str(torch.version.cuda),
            "architecture": f"sm_{properties.major}{properties.minor}",
            "multiprocessors": str(properties.multi_processor_count),
            "memory_mib": str(properties.total_memory >> 20),
            "l2_bytes": str(l2_bytes(device)),
            "datasheet_gbps": str(datasheet_gbps(properties.name)),
        }
        told |= driver_facts()
    return told


def driver_facts() -> dict[str, str]:
    """Driver, clocks, power and temperature at this moment; empty without nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.splitlines()[0].split(", ")
    return dict(zip((query.replace(".", "_") for query in QUERIES), values, strict=False))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
