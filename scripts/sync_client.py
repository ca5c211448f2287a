"""Makes the client without an event loop, client.py, from the one with it, aio.py.

python scripts/sync_client.py            # writes client.py
python scripts/sync_client.py --check    # writes nothing; exit code 1 if client.py is stale
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from unasync import Rule, unasync_files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "client/loragate/aio.py"
TARGET = SOURCE.with_name("client.py")

NAMES = {"AsyncAuditClient": "AuditClient", "AsyncConcepts": "Concepts", "_async": "_sync"}
"""Names in code, beside those of the language, which unasync knows."""

TEXTS = {
    "client.py is made from this file by scripts/sync_client.py.": (
        "Made from aio.py by scripts/sync_client.py; change that."
    ),
    "with an event loop": "without an event loop",
    "For asyncio; keep one per event loop.": "Thread-safe; keep one per process.",
    "async with AsyncAuditClient": "with AuditClient",
    "await client.": "client.",
    "`AsyncAuditClient.": "`AuditClient.",
}
"""What comments and docstrings say, which unasync leaves alone."""


def fresh() -> str:
    """The text that client.py should have."""
    with TemporaryDirectory() as folder:
        copy, made = Path(folder, SOURCE.name), Path(folder, TARGET.name)
        copy.write_text(SOURCE.read_text())
        unasync_files([str(copy)], [Rule(f"/{copy.name}", f"/{made.name}", NAMES)])
        text = made.read_text()
    for asynchronous, sync in TEXTS.items():
        text = text.replace(asynchronous, sync)
    # Other names sort otherwise, and `yield from` is to be had where nothing is awaited.
    text = _ruff(text, "check", "--fix", "--unsafe-fixes", "--select=I,UP028")
    return _ruff(text, "format")


def _ruff(text: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", f"--stdin-filename={TARGET}"]
    return subprocess.run(  # noqa: S603
        command, input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    ).stdout


def main() -> int:
    """Writes client.py, or says that it is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        TARGET.write_text(fresh())
    elif TARGET.read_text() != fresh():
        print("client.py is stale; run python scripts/sync_client.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
