"""Makes what all servers of the tests share: `python -m testkit.materials`.

The gradients of the embedded library take two minutes of one core, once for a machine. Afterwards
this takes seconds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from loragate_server.testing import environment


def main() -> None:
    """As an operator would, where `loragate_server.testing` has servers look."""
    with tempfile.TemporaryDirectory() as state:
        subprocess.run(
            [sys.executable, "-m", "loragate_server", "concepts", "build"],
            env=environment(Path(state), None),
            check=True,
        )


if __name__ == "__main__":
    main()
