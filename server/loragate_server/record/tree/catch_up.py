"""Gives a tree the lines of its log that it did not have yet when its process ended.

They are at the end of the log, or of files that it was renamed to and that lie beside it. A log
that does not hold the tree's last line was cut, rolled back or exchanged: nothing is decided then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from loragate_server.record.chain import Link, digest, last_line_start, parse_line
from loragate_server.record.tree.tree import LogTree, TreeError


def catch_up(tree: LogTree, log: Path) -> None:
    """Reads into `tree` what comes after its last line.

    Args:
        tree: has begun, or nothing is done.
        log: the decision log; need not be there where it was rotated.

    Raises:
        TreeError: the log does not continue the tree.
        OSError: a file cannot be read.
    """
    if not tree.begun:
        return
    seen = 0
    for file in _files(log):
        for seq, prev, line in _lines_from(file, tree.last.seq):
            seen = max(seen, seq)
            link = Link(seq, digest(line))
            if seq <= tree.last.seq:
                if seq == tree.last.seq and link != tree.last:
                    raise TreeError(f"{file.name} has another line {seq} than its tree")
            elif seq != tree.last.seq + 1 or prev != tree.last.sha256:
                raise TreeError(
                    f"{file.name} has a line {seq} that does not follow line {tree.last.seq} of "
                    "its tree; if a file lies elsewhere since the log was rotated, put it back"
                )
            else:
                tree.wrote(link, line)
    size = log.stat().st_size if log.exists() else 0
    if size and seen < tree.last.seq:
        raise TreeError(
            f"{log.name} does not reach line {tree.last.seq}, to which its tree goes: it was cut, "
            "rolled back or begun anew. Put back the log that belongs to the tree; to begin "
            f"another tree, which witnesses will see, move {tree.folder} away"
        )


def _files(log: Path) -> list[Path]:
    """The log and what it was renamed to, in the order of their lines."""
    named = []
    for file in log.parent.glob(f"{log.name}*"):
        if file.is_file() and ".torn-" not in file.name:
            first = next(_lines_from(file, None), None)
            if first is not None:
                named.append((first[0], file != log, file))
    return [file for _, _, file in sorted(named, key=lambda one: (one[0], not one[1]))]


def _lines_from(file: Path, seq: int | None) -> Iterator[tuple[int, str, bytes]]:
    """Number, digest of the line before, and bytes: of all lines, or from line `seq` on.

    A torn line at the end is left out; so is everything in a file that is no decision log.
    """
    with file.open("rb") as opened:
        if seq is not None:
            opened.seek(_start_of(opened.fileno(), seq))
        for line in opened:
            if not line.endswith(b"\n"):
                return
            try:
                entry = parse_line(line[:-1])
            except ValueError:
                return
            yield entry["seq"], entry["prev"], line[:-1]


def _start_of(fd: int, seq: int) -> int:
    """Where line `seq` begins, or the first line after it."""
    end = os.fstat(fd).st_size
    start = end
    while end > 0:
        begin = last_line_start(fd, end)
        try:
            found = parse_line(os.pread(fd, end - begin, begin).rstrip(b"\n"))["seq"]
        except ValueError:
            found = seq + 1  # torn, or no decision log: looked at again from the front
        if found < seq:
            break
        start = end = begin
    return start
