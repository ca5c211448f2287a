"""Whether another revision measures the same of adapters, to the last bit.

    python -m scripts.same_evidence main~10 examples/adapters
    python -m scripts.same_evidence v0.1.0 examples/adapters build/zoo/hands --most 40

Starts the server of either revision with the embedded base model, asks about every file, and
compares what the decision logs hold: each number of the evidence, findings and verdict. What names
a revision or a moment is left out. The exit status is 1 where anything differs, and each
difference is told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loragate import AuditClient, InvalidAdapter, InvalidRequest
from loragate_server.testing import server_process

ROOT = Path(__file__).parents[1]
PACKAGES = ("server", "client", "kernels")
WITHOUT_MEANING = frozenset({"stage_times_s", "engine_version", "policy_digest"})
"""Times, and what differs between any two revisions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares, and answers with the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="what git calls the other one")
    parser.add_argument("paths", nargs="+", type=Path, help="adapters, or folders of them")
    parser.add_argument("--most", type=int, default=None, help="files of each folder at most")
    given = parser.parse_args(arguments)
    files = [file.resolve() for path in given.paths for file in _files(path, given.most)]
    if not files:
        parser.error("there is no .safetensors file in what was named")
    with _worktree(given.revision) as other:
        before, after = _measured(other, files), _measured(ROOT, files)
    differing = {
        file: list(_differences(before[file], after[file]))
        for file in files
        if before[file] != after[file]
    }
    for file, places in differing.items():
        print(f"{file.name}:", *places[:10], sep="\n  ")
    print(f"{len(files) - len(differing)} of {len(files)} adapters have the same evidence")
    return 1 if differing else 0


def _files(path: Path, most: int | None) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.safetensors"))[:most]


@contextmanager
def _worktree(revision: str) -> Iterator[Path]:
    """A checkout of the revision, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run(  # noqa: S603
            [*git, "add", "--quiet", "--detach", str(tree), revision], check=True
        )
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)  # noqa: S603


def _measured(tree: Path, files: Sequence[Path]) -> Mapping[Path, Any]:
    """What the server of a checkout records of each file."""
    found: dict[Path, Any] = {}
    path = os.pathsep.join(str(tree / package) for package in PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        roots = json.dumps(sorted({str(file.parent) for file in files}))
        settings = {"PYTHONPATH": path, "LORAGATE_THREADS": "1", "LORAGATE_INTAKE__ROOTS": roots}
        ids: dict[str, list[Path]] = {}
        with (
            server_process(state, settings) as server,
            AuditClient(server.grpc, on_unavailable="raise", timeout=300) as client,
        ):
            for number, file in enumerate(files, 1):
                print(f"\r{tree.name}: {number} of {len(files)}", end="", file=sys.stderr)
                try:
                    ids.setdefault(client.audit(file).decision_id, []).append(file)
                except (
                    InvalidAdapter,
                    InvalidRequest,
                ) as error:  # what is refused is to be refused again
                    found[file] = {"refused": str(error).partition("] ")[2]}
        print(file=sys.stderr)
        for line in (state / "decisions.jsonl").read_text().splitlines():
            verdict = json.loads(line).get("verdict", {})
            for file in ids.get(verdict.get("decision_id"), ()):
                found[file] = _plain(verdict["decision"])
    return found


def _plain(value: Any) -> Any:
    """The record without what has no meaning here."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name not in WITHOUT_MEANING}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            one, other = (given.get(name, "nothing") for given in (before, after))
            yield from _differences(one, other, f"{place}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{place}[{number}]")
    elif before != after:
        yield f"{place.removeprefix('.')}: {before!r} before, {after!r} now"


if __name__ == "__main__":
    sys.exit(main())
