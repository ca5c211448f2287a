"""Writes requirements-image.txt: every package of the image with the hashes of its files.

The versions of `constraints.txt` hold; what is not named there is as new as the others allow. torch
is left out, with what only its builds for GPUs need: which build it is, and from which index, says
whoever makes the image. Needs a package index, and takes some seconds.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements-image.txt"
UV = "uv==0.13.9"
OWN = {"loragate": "client", "loragate-kernels": "kernels", "loragate-server": "server"}
EXTRAS = "postgres,s3,console,plot,tracing,signing,events"
OLDEST_PYTHON = "3.11"
WITH_TORCH = re.compile(r"(torch|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
"""What comes with the build of torch that the image is made with."""

HEADER = (
    "# Made by scripts/lock_image.py: what the image holds beside loragate itself and torch, with\n"
    "# the sha256 of every file of each version, for each platform.\n"
)


def main() -> None:
    """Resolves anew and writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        lock = _resolved(Path(folder))
    kept = [entry for entry in entries(lock) if not WITH_TORCH.match(entry)]
    LOCK.write_text(HEADER + "".join(kept))
    sys.stdout.write(f"Wrote {len(kept)} packages to {LOCK.name}\n")
    sys.stdout.write("Now run `make setup` and `python -m scripts.sbom --describe`.\n")


def entries(lock: str) -> Iterator[str]:
    """The requirements of a lock, each with its hashes; comments are left out."""
    lines = [line for line in lock.splitlines(keepends=True) if not line.startswith("#")]
    yield from re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", "".join(lines), flags=re.MULTILINE)


def _resolved(folder: Path) -> str:
    """What uv makes of the three distributions under the constraints."""
    wanted, override, lock = (folder / name for name in ("wanted.in", "override.txt", "lock.txt"))
    wanted.write_text("".join(f"{_requirement(name)}\n" for name in OWN))
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    # A build of torch demands its own Triton; the tree is tested with another one.
    override.write_text("".join(f"{line}\n" for line in pinned if line.startswith("triton==")))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", UV], check=True)  # noqa: S603
    subprocess.run(  # noqa: S603
        [
            *(folder / "venv" / "bin" / "uv", "pip", "compile", "--quiet", "--no-config"),
            *("--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"),
            *("--constraint", ROOT / "constraints.txt", "--override", override),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--output-file", lock),
            *(f"--no-emit-package={name}" for name in OWN),
            wanted,
        ],
        check=True,
    )
    return lock.read_text()


def _requirement(name: str) -> str:
    extras = f"[{EXTRAS}]" if name == "loragate-server" else ""
    return f"{name}{extras} @ {(ROOT / OWN[name]).as_uri()}"


if __name__ == "__main__":
    main()
