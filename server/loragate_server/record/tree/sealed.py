"""`verify_tree`: holds a log to checkpoints that were handed out, whoever owns the log by now.

Up to the size of a checkpoint every changed, removed, inserted or swapped line shows, and so does a
log that is shorter. What came after the last checkpoint only the chain speaks for.

What is provable of times: a line within a checkpoint was there when a witness saw that checkpoint,
and a line beyond it was not. So a line's time lies between two moments of witnesses, as close as
checkpoints are; within that, its writer's clock is all there is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from loragate_server.record.chain import LogProblem, digest, parse_line
from loragate_server.record.tree.checkpoint import Checkpoint
from loragate_server.record.tree.merkle import leaf_hash, root_of
from loragate_server.record.tree.tiles import WIDTH, TileError, Tiles
from loragate_server.record.tree.tree import TreeError, TreeState, begun_by, grown, root_of_edge

DEFAULT_SKEW = timedelta(seconds=60)
"""How far the clocks of log and witness may be apart, and how late a checkpoint may be seen."""


@dataclass(frozen=True)
class Seen:
    """A checkpoint that is trusted.

    Attributes:
        where: it was found.
        moment: when a witness saw it first; None without one.
    """

    checkpoint: Checkpoint
    where: str
    moment: datetime | None = None


@dataclass(frozen=True)
class Leaf:
    """A line of the log in the tree.

    Attributes:
        file, number: where it stands; number 0 for a line of which there is only the hash.
        time: what it says of itself; None where it says nothing that can be read.
        decided: when its decision was made; None for another kind of line.
    """

    hash: bytes
    seq: int
    file: str = ""
    number: int = 0
    time: datetime | None = None
    decided: datetime | None = None


def verify_tree(
    paths: Sequence[Path],
    seen: Sequence[Seen],
    *,
    tree: tuple[Path, TreeState] | None = None,
    skew: timedelta = DEFAULT_SKEW,
    absent: Callable[[str], None] = lambda _: None,
) -> tuple[LogProblem, ...]:
    """What is wrong about a log, as far as checkpoints tell.

    Args:
        paths: files of the log, rotated ones first, oldest first.
        seen: checkpoints of one tree, at least one.
        tree: folder and state of the tree beside the log; it names a line that was changed, and
            stands in for lines in files that are there no more.
        skew: see `DEFAULT_SKEW`.
        absent: told of lines of which there is only the hash: that is no fault where old files
            were deleted on purpose, and one where nobody knows of it.

    Raises:
        TreeError: the checkpoints are of different trees, or there are none.
        OSError: a file cannot be read.
    """
    origins = {one.checkpoint.origin for one in seen}
    if len(origins) != 1:
        raise TreeError(f"one tree is verified at a time, not {len(origins)}")
    [origin] = origins
    known = tree if tree is not None and tree[1].origin == origin else None
    leaves = _leaves(paths, origin, known)
    if not leaves:
        return (LogProblem(str(paths[-1]), 0, f"has no line of the tree {origin}"),)
    if gone := sum(leaf.number == 0 for leaf in leaves):
        absent(
            f"the first {gone} lines of {origin} are in no file that was named; only their hashes "
            "are there, so nobody can read what was decided"
        )
    ordered = sorted(seen, key=lambda one: one.checkpoint.size)
    return (
        *_forks(ordered),
        *_roots(leaves, ordered, str(paths[-1]), known),
        *_times(leaves, [one for one in ordered if one.moment is not None], skew),
    )


def _leaves(paths: Sequence[Path], origin: str, tree: tuple[Path, TreeState] | None) -> list[Leaf]:
    """The lines of a tree, of which the first may be known by the tiles alone."""
    found: list[Leaf] = []
    before, inside = "", True
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                bare = line.removesuffix(b"\n")
                entry = _entry(bare)
                seq = int(entry.get("seq", 0))
                begins = begun_by(bare)
                if not found and begins != origin:
                    if tree is None or seq < tree[1].first_seq or begins:
                        continue
                    found = _hashes(tree, seq)
                elif found and (begins or (number == 1 and entry.get("prev") != before)):
                    inside = False  # another tree, or the log of another replica
                if not inside:
                    continue
                before = digest(bare)
                found.append(
                    Leaf(
                        leaf_hash(bare),
                        seq,
                        str(path),
                        number,
                        _moment(entry.get("time")),
                        _moment(_of(entry.get("verdict"), "decided_at")),
                    )
                )
    return found


def _hashes(tree: tuple[Path, TreeState], before: int) -> list[Leaf]:
    folder, state = tree
    tiles = Tiles(folder, state.size)
    count = min(before - state.first_seq, state.size)
    try:
        return [
            Leaf(tiles.tile(0, n // WIDTH)[n % WIDTH], state.first_seq + n, str(folder))
            for n in range(count)
        ]
    except TileError as error:
        raise TreeError(f"lines before {before} are in no file, and {error}") from None


def _forks(ordered: Sequence[Seen]) -> Iterator[LogProblem]:
    for one, other in pairwise(ordered):
        ours, theirs = one.checkpoint, other.checkpoint
        if ours.size == theirs.size and ours.root != theirs.root:
            yield LogProblem(
                other.where, 0, f"and {one.where} are two trees of {ours.size} lines: a fork"
            )


def _roots(
    leaves: Sequence[Leaf],
    ordered: Sequence[Seen],
    last_file: str,
    tree: tuple[Path, TreeState] | None,
) -> Iterator[LogProblem]:
    edge: list[list[bytes]] = []
    size = 0
    for one in ordered:
        wanted = one.checkpoint.size
        if wanted > len(leaves):
            yield LogProblem(
                last_file,
                leaves[-1].number,
                f"is the last of {len(leaves)} lines, and {one.where} has {wanted}: "
                f"{wanted - len(leaves)} were cut off, or the log was rolled back",
            )
            continue
        edge = grown(edge, size, [leaf.hash for leaf in leaves[size:wanted]], lambda *_: None)
        size = wanted
        if root_of_edge(edge) != one.checkpoint.root:
            yield _changed(leaves, one, tree)
            return  # every later root is another one as well


def _changed(leaves: Sequence[Leaf], seen: Seen, tree: tuple[Path, TreeState] | None) -> LogProblem:
    """The first line that is not what it was, as far as the tiles tell."""
    size = seen.checkpoint.size
    last = leaves[size - 1]
    if tree is not None and tree[1].size >= size:
        tiles = Tiles(tree[0], size)
        try:
            written = [h for n in range(-(-size // WIDTH)) for h in tiles.tile(0, n)]
        except TileError:
            written = []
        if written and root_of(written) == seen.checkpoint.root:
            for leaf, hash_ in zip(leaves, written, strict=False):
                if leaf.hash != hash_:
                    return LogProblem(leaf.file, leaf.number, f"is not what {seen.where} has")
    return LogProblem(last.file, last.number, f"and the lines above are not those of {seen.where}")


def _times(leaves: Sequence[Leaf], seen: Sequence[Seen], skew: timedelta) -> Iterator[LogProblem]:
    """Lines that say a time at which they were not written."""
    sizes = [one.checkpoint.size for one in seen]
    moments = [one.moment for one in seen if one.moment is not None]
    earlier = list(accumulate(moments, max))
    later = list(accumulate(reversed(moments), min))[::-1]
    latest: datetime | None = None
    for index, leaf in enumerate(leaves):
        if leaf.number == 0:
            continue
        if leaf.time is None:
            yield LogProblem(leaf.file, leaf.number, "has no time that can be read")
            continue
        place = bisect_right(sizes, index)  # so many checkpoints do not have the line
        after = earlier[place - 1] if place > 0 else None
        before = later[place] if place < len(later) else None
        if after is not None and after - leaf.time > skew:
            yield _late(leaf, f"was not there yet when a witness saw the log at {after}")
        if before is not None and leaf.time - before > skew:
            yield _late(leaf, f"was there when a witness saw the log at {before}")
        if latest is not None and latest - leaf.time > skew:
            yield _late(leaf, f"follows one of {latest}")
        if leaf.decided is not None and abs(leaf.time - leaf.decided) > skew:
            yield _late(leaf, f"has a decision of {leaf.decided}")
        latest = max(latest or leaf.time, leaf.time)


def _late(leaf: Leaf, why: str) -> LogProblem:
    return LogProblem(leaf.file, leaf.number, f"says {leaf.time}, but {why}")


def _entry(line: bytes) -> dict[str, Any]:
    try:
        return parse_line(line)
    except ValueError:
        return {}


def _of(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):  # the latter for the first and the last day of all time
        return None


def newest(seen: Iterable[Seen]) -> Seen:
    """The one with the most lines."""
    return max(seen, key=lambda one: one.checkpoint.size)
