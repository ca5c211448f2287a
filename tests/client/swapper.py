"""Another process that replaces a file by others all the time: python swapper.py FILE OTHER..."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main(target: Path, *contents: Path) -> None:
    for number, content in enumerate(itertools.cycle([path.read_bytes() for path in contents])):
        fresh = target.with_suffix(".next")
        fresh.write_bytes(content)
        fresh.replace(target)
        if number == len(contents):
            print("swapping", flush=True)


@contextmanager
def swapping(target: Path, *contents: bytes) -> Iterator[None]:
    """Has another process replace a file by each of the contents in turn."""
    files = [target.with_suffix(f".{number}") for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    command = [sys.executable, __file__, str(target), *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "swapping\n"
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
