"""`LogTree`: the tree of a decision log, which grows with each line and is written now and then.

Lines wait in memory as 32 bytes each, so a decision costs one more SHA-256 and nothing on the disk.
`save` writes tiles first, then `state.json`, which says how far the tree goes. A process that ends
in between leaves the state of before, and tiles that fit it: `catch_up` then reads from the log
what had not been saved.

The first line of a tree is a note that names it (`tree_begins`). It has the digest of the line
before it, so the tree speaks for what was in the log before, too.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loragate_server.files import sync_folder, whole_file
from loragate_server.record.chain import Link, parse_line
from loragate_server.record.tree.checkpoint import Checkpoint
from loragate_server.record.tree.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
)
from loragate_server.record.tree.tiles import WIDTH, TileError, Tiles, write_tile

BEGINS = "tree_begins"
STATE, CHECKPOINT = "state.json", "checkpoint"
_FORMAT = 1


class TreeError(ValueError):
    """A tree and its log do not belong together, or a tree is damaged; the text says how."""


@dataclass(frozen=True)
class TreeState:
    """How far a tree goes.

    Attributes:
        first_seq: number of the log's line that is the tree's first.
        last: the log's line that is the tree's last.
        root: of the tree, 32 bytes.
    """

    origin: str
    first_seq: int = 0
    last: Link = field(default_factory=Link)
    root: bytes = EMPTY_ROOT

    @property
    def size(self) -> int:
        """Lines in the tree."""
        return self.last.seq - self.first_seq + 1 if self.first_seq else 0

    @property
    def checkpoint(self) -> Checkpoint:
        """What the log says of itself."""
        return Checkpoint(self.origin, self.size, self.root)


class LogTree:
    """The tree in a folder beside the log. Thread-safe."""

    def __init__(self, folder: Path, name: str) -> None:
        """Opens the tree, or makes ready to begin one.

        Args:
            folder: of the tree; made by the first `save`.
            name: first part of the origin, which has a random second part.

        Raises:
            TreeError: it is damaged.
            OSError: it cannot be read.
        """
        self.folder = folder
        self._lock = threading.Lock()  # over what follows
        self._saving = threading.Lock()
        self._waiting: list[bytes] = []
        self._gap = ""
        state = read_state(folder)
        if state is None:
            state = TreeState(f"{name}/{secrets.token_hex(8)}")
        self._saved, self._edge = state, _edge(folder, state)
        self._first_seq, self._last = state.first_seq, state.last

    @property
    def saved(self) -> TreeState:
        """The tree as it is on the disk."""
        return self._saved

    @property
    def begun(self) -> bool:
        """Whether there is a first line."""
        return self._first_seq > 0

    @property
    def last(self) -> Link:
        """The last line of the log that the tree has or that waits for it."""
        return self._last

    @property
    def waiting(self) -> int:
        """Lines that wait for `save`."""
        return len(self._waiting)

    def first_note(self) -> dict[str, Any]:
        """The note with which the tree begins."""
        return {"code": BEGINS, "origin": self._saved.origin}

    def wrote(self, link: Link, line: bytes) -> None:
        """Takes in a line that is in the log now.

        Args:
            link: of the line.
            line: without its line feed.
        """
        with self._lock:
            if not self._first_seq:
                if begun_by(line) != self._saved.origin:
                    return
                self._first_seq = link.seq
            elif link.seq != self._last.seq + 1:
                self._gap = (
                    f"line {link.seq} came to the tree after line {self._last.seq}; start the "
                    "server again, which then reads the log"
                )
            self._waiting.append(leaf_hash(line))
            self._last = link

    def save(self) -> TreeState:
        """Writes the lines that wait into tiles; when this returns, they are on the disk.

        Raises:
            TreeError: lines are missing between those that came.
            OSError: they cannot be written; they still wait then.
        """
        with self._saving:
            if self._gap:
                raise TreeError(self._gap)
            with self._lock:
                taken, last, first_seq = list(self._waiting), self._last, self._first_seq
            if not taken:
                return self._saved
            edge = grown(self._edge, self._saved.size, taken, self._write)
            state = replace(self._saved, first_seq=first_seq, last=last, root=root_of_edge(edge))
            write_state(self.folder, state)
            with self._lock:
                self._saved, self._edge = state, edge
                del self._waiting[: len(taken)]
            return state

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Shows that the tree of `new` lines, which are saved, continues the one of `old`.

        Raises:
            TileError: tiles are missing.
        """
        return consistency_proof(Tiles(self.folder, new).subtree, old, new)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Shows that a line is in the tree of `size` lines, which are saved.

        Raises:
            TileError: tiles are missing.
        """
        return inclusion_proof(Tiles(self.folder, size).subtree, index, size)

    def _write(self, level: int, number: int, hashes: list[bytes]) -> None:
        write_tile(self.folder, level, number, hashes)


def grown(
    edge: list[list[bytes]],
    size: int,
    leaves: list[bytes],
    write: Callable[[int, int, list[bytes]], None],
) -> list[list[bytes]]:
    """The edge of a tree with more leaves; every tile that changes is given to `write`.

    Args:
        edge: last tile of each level while it is partial, from the leaves up; stays as it is.
        size: leaves of the tree so far.
        leaves: hashes that come to it.
        write: is given level, number and hashes of a tile.
    """
    after, level, coming = [list(row) for row in edge], 0, leaves
    while coming:
        if level == len(after):
            after.append([])
        number, row = size // WIDTH, after[level] + coming
        whole = len(row) // WIDTH
        above = []
        for tile in range(whole):
            hashes = row[tile * WIDTH : (tile + 1) * WIDTH]
            write(level, number + tile, hashes)
            above.append(root_of(hashes))
        after[level] = row[whole * WIDTH :]
        if after[level]:
            write(level, number + whole, after[level])
        size, level, coming = size // WIDTH, level + 1, above
    return after


def root_of_edge(edge: list[list[bytes]]) -> bytes:
    """The root of a tree, from the last tile of each level."""
    rest: list[bytes] = []
    for row in edge:
        if row or rest:
            rest = [root_of(row + rest)]
    return rest[0] if rest else EMPTY_ROOT


def read_state(folder: Path) -> TreeState | None:
    """How far a tree goes; None where there is none.

    Raises:
        TreeError: it is damaged.
        OSError: it cannot be read.
    """
    file = folder / STATE
    try:
        found = json.loads(file.read_bytes())
        if found["format"] != _FORMAT:
            raise TreeError(f"{file} has format {found['format']}, not {_FORMAT}")
        last = Link(int(found["seq"]), str(found["sha256"]))
        state = TreeState(
            str(found["origin"]), int(found["first_seq"]), last, bytes.fromhex(found["root"])
        )
    except FileNotFoundError:
        if (folder / CHECKPOINT).exists():
            raise TreeError(
                f"{folder} has a checkpoint, but {STATE} is gone; put it back"
            ) from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, TreeError):
            raise
        raise TreeError(f"{file} is damaged; put it back from a backup") from None
    return state


def write_state(folder: Path, state: TreeState) -> None:
    """Writes how far a tree goes, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = {
        "format": _FORMAT,
        "origin": state.origin,
        "first_seq": state.first_seq,
        "seq": state.last.seq,
        "sha256": state.last.sha256,
        "root": state.root.hex(),
    }
    with whole_file(folder / STATE) as partial:
        partial.write_text(json.dumps(told) + "\n", encoding="ascii")
    sync_folder(folder)


def _edge(folder: Path, state: TreeState) -> list[list[bytes]]:
    """The edge of a saved tree, which has to have its root."""
    try:
        edge = Tiles(folder, state.size).edge()
    except TileError as error:
        raise TreeError(f"the tree in {folder} is damaged: {error}") from None
    if root_of_edge(edge) != state.root:
        raise TreeError(f"the tiles in {folder} do not have the root that {STATE} names")
    return edge


def begun_by(line: bytes) -> str:
    """The origin of the tree that a line of the log begins; empty where it begins none."""
    if BEGINS.encode() not in line:
        return ""
    try:
        note = parse_line(line).get("note")
    except ValueError:
        return ""
    if not isinstance(note, dict) or note.get("code") != BEGINS:
        return ""
    return str(note.get("origin", ""))
