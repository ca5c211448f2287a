"""Where a number was measured, and how results are written."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str]:
    """Processor, cores and the versions that matter for a result."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    packages = ("torch", "diffusers", "peft", "triton", "grpcio", "protobuf")
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": names[0] if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(name: str, result: dict[str, object], markdown: str) -> None:
    """Writes `results/<name>.json` and `.md` and prints the latter."""
    RESULTS.mkdir(exist_ok=True)
    where = machine()
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": where, **result}, indent=1) + "\n")
    facts = ", ".join(f"{key} {value}" for key, value in where.items())
    text = f"{markdown}\n\nMeasured by `{_command()}`: {facts}.\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _command() -> str:
    """How the running benchmark is run again, without the options that it was given."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
