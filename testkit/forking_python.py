"""What a client takes for its Python: has its engine forked, and ends as the engine does.

Run by `testkit.engines`, without anything but the standard library, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

ENGINE = ["-P", "-m", "loragate_server"]


def main() -> None:
    """Asks at the socket that is named first; what follows is what Python was to run."""
    place, *words = sys.argv[1:]
    if words[:3] != ENGINE:
        raise SystemExit(f"only an engine is forked, by {ENGINE}; this is {words}")
    asked = {"words": words[3:], "folder": str(Path.cwd()), "variables": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as nursery:
        nursery.connect(place)
        socket.send_fds(nursery, [b"\n"], [0, 1, 2])
        nursery.sendall(json.dumps(asked).encode() + b"\n")
        status = int(nursery.makefile().read() or 1)  # silent where the tests have ended
    if status < 0:
        os.kill(os.getpid(), -status)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
