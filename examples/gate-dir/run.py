"""The start-up door over the shipped adapters.

    python examples/gate-dir/run.py [FOLDER]

Starts a loragate server, runs `loragate gate-dir` on the folder with every kind of report, and
leaves with its exit code: 1 for the shipped adapters, as some have learned forbidden concepts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from loragate.cli import main as loragate
from loragate_server.testing import server_process

ADAPTERS = Path(__file__).parents[1] / "adapters"


def main(folder: Path) -> int:
    """Runs the example; returns the exit code of the command."""
    with tempfile.TemporaryDirectory() as place:
        state, sarif, junit = (Path(place, name) for name in ("state", "gate.sarif", "gate.xml"))
        state.mkdir()
        with server_process(state) as server:
            reports = ["--sarif", str(sarif), "--junit", str(junit)]
            code = loragate(["gate-dir", "--target", server.grpc, *reports, str(folder)])
        print(junit.read_text(encoding="utf-8"))
    print(f"exit code {code}")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ADAPTERS))
