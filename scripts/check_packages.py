"""Builds the three distributions, checks them, and uses them as a stranger would.

    .venv/bin/python -m scripts.check_packages               # wheels and sdists stay in build/dist
    .venv/bin/python -m scripts.check_packages --skip-use    # without the clean installation

Builds an sdist of each folder and the wheel from that sdist, so that the same commit gives the same
bytes (the only moment in them is SOURCE_DATE_EPOCH, else that of the commit), asks twine whether a
package index would take them, installs the three wheels alone into an empty environment, and audits
two example adapters with what is installed there. Takes three minutes, most of them for torch.
`TORCH_INDEX` names a package index for torch, for example one of CPU builds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from scripts.supply import building
from scripts.supply.source import SourceError, epoch_of

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "examples" / "adapters"
EXPECTED = {"harmless-watermelon": "ALLOW", "learned-bomb": "BLOCK"}
USE = """
import sys, tempfile
from pathlib import Path
from loragate import AuditClient
import loragate, loragate_kernels, loragate_server
from loragate_server.testing import server_process

for package in (loragate, loragate_kernels, loragate_server):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
with (
    tempfile.TemporaryDirectory() as state,
    server_process(Path(state), program=("-I", "-m", "loragate_server")) as server,
    AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
):
    for file in sys.argv[1:]:
        print(Path(file).stem, client.audit_file(file).verdict.name)
"""


def run(*command: str | Path, **options: object) -> str:
    """Runs a command without settings of Python from outside; ends the check if it fails."""
    shown = " ".join(map(str, command)).strip().replace("\n", " ")
    print("+", shown[:90] + "..." * (len(shown) > 90), flush=True)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LORAGATE_", "PYTHON", "PIP_TARGET", "PIP_PREFIX"))
    }
    done = subprocess.run(  # noqa: S603
        [str(each) for each in command], env=clean, text=True, stdout=subprocess.PIPE, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        print(done.stdout)
        sys.exit(f"check_packages: {command[0]} ended with {done.returncode}")
    return str(done.stdout)


def environment(folder: Path) -> Path:
    """Makes an empty virtual environment; returns its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python: Path, *wanted: str | Path) -> None:
    """Installs with the versions that this tree is tested with."""
    pip = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    run(*pip, "--constraint", ROOT / "constraints.txt", *wanted)


def build(place: Path, dist: Path) -> list[Path]:
    """Builds sdists, and wheels from them, out of copies that hold no leftovers."""
    python = environment(place / "tools")
    install(python, "build", "setuptools", "twine")
    building.copy_of(ROOT, place)
    try:
        made = building.build(place, dist, epoch_of(ROOT), python=python)
    except (SourceError, building.BuildError) as error:
        sys.exit(f"check_packages: {error}")
    if len(made) != 2 * len(building.FOLDERS):
        sys.exit(f"check_packages: built {', '.join(one.name for one in made)}")
    print(run(python, "-m", "twine", "check", "--strict", *made), end="")
    return [one for one in made if one.suffix == ".whl"]


def use(place: Path, wheels: list[Path]) -> None:
    """Installs the wheels where nothing else is, and audits with them."""
    python = environment(place / "clean")
    index = os.environ.get("TORCH_INDEX")
    install(python, *(("--index-url", index) if index else ()), "torch")
    install(
        python, *(f"{one}[scan]" if one.name.startswith("loragate-") else one for one in wheels)
    )
    run(python, "-m", "pip", "check")
    command = python.with_name("loragate-server")
    for arguments in (("--version",), ("--help",), ("serve", "--help")):
        run(command, *arguments, cwd=place)
    run(python, "-I", "-m", "loragate_server", "--version", cwd=place)
    run(python.with_name("loragate"), "--help", cwd=place)
    files = [ADAPTERS / f"{name}.safetensors" for name in EXPECTED]
    scan(python.with_name("loragate"), place)
    said = run(python, "-I", "-c", USE, *files, cwd=place)
    print(said, end="")
    if dict(line.split() for line in said.splitlines()) != EXPECTED:
        sys.exit("check_packages: the verdicts are others than expected")


def scan(command: Path, place: Path) -> None:
    """The second of two commands from an empty environment to a verdict, and once more."""
    file, state = ADAPTERS / "harmless-watermelon.safetensors", place / "scan"
    for _ in range(2):
        began = time.monotonic()
        said = run(command, "scan", "--state", state, "--format", "csv", file, cwd=place)
        if ",ALLOW,true," not in said:
            sys.exit("check_packages: a scan said otherwise than expected")
        print(f"scanned in {time.monotonic() - began:.1f} s")


def main() -> None:
    """Runs the check; exit code 0 when all of it holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--skip-use", action="store_true", help="do not install the wheels")
    wanted = parser.parse_args()
    dist = ROOT / "build" / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="loragate-packages-") as folder:
        wheels = build(Path(folder), dist)
        if not wanted.skip_use:
            use(Path(folder), wheels)
    print(f"check_packages: all is well; {dist.relative_to(ROOT)} can be published")


if __name__ == "__main__":
    main()
