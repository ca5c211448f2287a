"""Full files of the decision log whose time is over: archived, noted in the log, then deleted.

A file goes as a whole or not at all, and the oldest first, so that what is left is one chain. The
note holds the digest of the last line of the file, which the first line that is left holds too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loragate_server.files import sync_folder
from loragate_server.record.chain import Link, parse_line, verify_log
from loragate_server.record.log import DecisionLog
from loragate_server.record.retention.archive import Archive
from loragate_server.record.retention.holds import Hold
from loragate_server.record.retention.pruner import Tally
from loragate_server.record.rotation import rotated_files


@dataclass(frozen=True)
class OldFile:
    """A full file, all lines of which are over.

    Attributes:
        newest: when its last line was written.
        sha256: of all its bytes.
    """

    path: Path
    first_seq: int
    last: Link
    newest: datetime
    decisions: int
    size_bytes: int
    sha256: str


def old_files(
    log: Path,
    before: datetime,
    holds: Sequence[Hold],
    tally: Tally,
    taken: int | None = None,
) -> list[OldFile]:
    """The files that may go; tells `tally` why the next one stays.

    Args:
        log: the file that is written.
        before: what is older is over.
        holds: keep what they are about.
        tally: is told of all that goes and stays.
        taken: the last line that all audit devices have; None where none waits for any.

    Raises:
        OSError: a file cannot be read.
    """
    found = []
    for path in rotated_files(log):
        newest = _last_time(path)
        if newest is None or not verify_log(path).intact:
            tally.unreadable += 1
            break
        if newest >= before:
            break
        held = _held_by(path, holds)
        if held:
            tally.held.update(held)
            break
        described = _described(path, newest)
        if taken is not None and described.last.seq > taken:
            tally.kept["an audit device does not have them yet"] += 1
            break
        found.append(described)
    tally.count += len(found)
    tally.size_bytes += sum(one.size_bytes for one in found)
    return found


def prune_files(files: Sequence[OldFile], log: DecisionLog, archive: Archive) -> None:
    """Lets them go.

    Raises:
        ArchiveError: a file could not be archived; it is left, and so are later ones.
        NoDecisionError: the note could not be written; as above.
        OSError: a file cannot be read or deleted.
    """
    for one in files:
        at = archive.add_file(one.path)
        log.append_note(
            {
                "code": "log_file_pruned",
                "file": one.path.name,
                "first_seq": one.first_seq,
                "last_seq": one.last.seq,
                "last_sha256": one.last.sha256,
                "sha256": one.sha256,
                "newest": one.newest.isoformat(),
                "decisions": one.decisions,
                "archive": at,
            }
        )
        one.path.unlink()
        sync_folder(one.path.parent)


def _described(path: Path, newest: datetime) -> OldFile:
    check = verify_log(path)
    data = path.read_bytes()
    return OldFile(
        path,
        check.last.seq - check.lines + 1,
        check.last,
        newest,
        len(check.decision_ids),
        len(data),
        hashlib.sha256(data).hexdigest(),
    )


def _last_time(path: Path) -> datetime | None:
    """When the newest line was written; None where that cannot be read."""
    times = []
    try:
        with path.open("rb") as file:
            for line in file:
                times.append(datetime.fromisoformat(parse_line(line.removesuffix(b"\n"))["time"]))
    except (ValueError, KeyError, TypeError):
        return None
    return max(times, default=None)


def _held_by(path: Path, holds: Sequence[Hold]) -> set[str]:
    """Names of the holds on any line."""
    found: set[str] = set()
    with path.open("rb") as file:
        for line in file:
            entry = parse_line(line.removesuffix(b"\n"))
            for hold in holds:
                about = (entry["kind"] == "decision" and hold.holds_decision(entry["verdict"])) or (
                    entry["kind"] == "review" and hold.holds_review(entry["review"])
                )
                if about:
                    found.add(hold.name)
    return found
