"""Tiles of a tree in a folder, as C2SP's tlog-tiles names them: 256 hashes a file.

A tile is written once and never changes: a full one has its name to itself, a partial one has its
width in its name. So a crash can leave a tile that nobody needs yet, but none that is wrong.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from loragate_server.files import sync_folder, whole_file
from loragate_server.record.tree.merkle import HASH_BYTES, root_of

HEIGHT = 8
WIDTH = 1 << HEIGHT
_TILES_IN_MEMORY = 64


class TileError(ValueError):
    """A tile is not there, or not what its name says."""


def tile_name(level: int, number: int, width: int = WIDTH) -> str:
    """Where a tile lies in the folder of its tree."""
    parts = [f"{number % 1000:03}"]
    while (number := number // 1000) > 0:
        parts.insert(0, f"x{number % 1000:03}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(parts)}{partial}"


def write_tile(folder: Path, level: int, number: int, hashes: list[bytes]) -> None:
    """Writes a tile to the disk, unless it is there; its name is durable, too.

    Raises:
        OSError: it cannot be written.
    """
    file = folder / tile_name(level, number, len(hashes))
    data = b"".join(hashes)
    if not (file.is_file() and file.read_bytes() == data):
        new = [above for above in file.parents if not above.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as partial:
            partial.write_bytes(data)
        for above in dict.fromkeys((file.parent, *(one.parent for one in new))):
            sync_folder(above)


class Tiles:
    """Reads the hashes of a tree of a known size from its tiles."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self.tile = lru_cache(_TILES_IN_MEMORY)(self._tile)

    def subtree(self, level: int, index: int) -> bytes:
        """The hash over leaves [index * 2**level, (index + 1) * 2**level).

        Raises:
            TileError: the tiles do not hold it.
        """
        row, height = divmod(level, HEIGHT)
        first = index << height
        tile = self.tile(row, first >> HEIGHT)
        begin = first % WIDTH
        hashes = tile[begin : begin + (1 << height)]
        if len(hashes) != 1 << height:
            raise TileError(f"a tree of {self._size} leaves has no subtree {level}/{index}")
        return root_of(hashes)

    def _tile(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile, as far as the tree goes."""
        width = min(WIDTH, (self._size >> (HEIGHT * level)) - number * WIDTH)
        if width <= 0:
            raise TileError(f"a tree of {self._size} leaves has no tile {level}/{number}")
        for wide in dict.fromkeys((width, WIDTH)):  # a full tile serves smaller trees as well
            name = tile_name(level, number, wide)
            try:
                data = (self._folder / name).read_bytes()
            except FileNotFoundError:
                continue
            if len(data) != wide * HASH_BYTES:
                raise TileError(f"{name} has {len(data)} bytes instead of {wide * HASH_BYTES}")
            return [data[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]
        raise TileError(f"{tile_name(level, number, width)} is missing")

    def edge(self) -> list[list[bytes]]:
        """The last tile of each level while it is partial, from the leaves up."""
        edge, count, level = [], self._size, 0
        while count > 0:
            edge.append(self.tile(level, count // WIDTH) if count % WIDTH else [])
            count, level = count // WIDTH, level + 1
        return edge
