"""Writes into docs/integrations.md what comes of each door of a guarded diffusers pipeline.

.venv/bin/python -m scripts.guard_doors            goes through all doors, and writes the table
.venv/bin/python -m scripts.guard_doors --check    exit code 1 where it is not as written
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import diffusers
import transformers

from testkit.guard_doors.bench import Files
from testkit.guard_doors.observe import Observation, Seen, observe_all

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "integrations.md"
BEGIN = "<!-- doors: made by `python -m scripts.guard_doors` -->"
END = "<!-- end of doors -->"


def table(observations: Sequence[Observation]) -> str:
    """The table of doors, those that are seen first."""
    order = list(Seen)
    rows = sorted(observations, key=lambda one: order.index(one.seen))
    lines = [f"| `{one.door.name}` | {one.seen.value} |" for one in rows]
    return "\n".join(["| a program writes | |", "|---|---|", *lines])


def written() -> str:
    """The table in the document.

    Raises:
        ValueError: the document has no place for it.
    """
    return _parts(DOCUMENT.read_text())[1]


def quiet() -> None:
    """Keeps the libraries from telling on each door what they think of it."""
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="peft|diffusers|transformers")


def _parts(text: str) -> tuple[str, str, str]:
    before, found, rest = text.partition(f"{BEGIN}\n\n")
    inside, ended, after = rest.partition(f"\n\n{END}")
    if not found or not ended:
        raise ValueError(f"{DOCUMENT} has no place between {BEGIN} and {END}.")
    return before + found, inside, ended + after


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        made = table(observe_all(Files(Path(folder))))
    before, inside, after = _parts(DOCUMENT.read_text())
    if check:
        return int(inside != made)
    DOCUMENT.write_text(before + made + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
