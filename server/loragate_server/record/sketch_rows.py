"""Sketches in the database, on a connection that the caller has opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from loragate_server.audit.evidence import SKETCH_VERSION
from loragate_server.record.tables import sketches
from loragate_server.record.verdict import Verdict

_AT_ONCE = 500


class SketchKey(NamedTuple):
    """Which weights: a file with its configuration, on a base model."""

    base_digest: str
    sha256: str
    config_sha256: str


def sketches_of(verdict: Verdict) -> Iterator[tuple[SketchKey, Sequence[bytes]]]:
    """The sketches that an audit made; none of files that it did not read."""
    evidence = verdict.decision.evidence
    for one in evidence.adapters:
        if one.sketches:
            yield SketchKey(evidence.base_digest, one.sha256, one.config_sha256), one.sketches


def insert_sketches(connection: Connection, verdict: Verdict) -> None:
    """Records the sketches of adapters, in place of those of before: reading may have changed.

    Fewer than before take nothing away: what loaders make of the file was not read to its end.
    """
    made_of = dict(sketches_of(verdict))
    before = read_sketches(connection, made_of)
    rows = [
        {**key._asdict(), "version": SKETCH_VERSION, "reading": number, "sketch": sketch}
        for key, made in made_of.items()
        if len(made) >= len(before.get(key, ()))
        for number, sketch in enumerate(made)
    ]
    if not rows:
        return
    # Another replica may add the same one at the same moment.
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    added = dialect.insert(sketches)
    own = [column.name for column in sketches.primary_key]
    added = added.on_conflict_do_update(index_elements=own, set_={"sketch": added.excluded.sketch})
    connection.execute(added, rows)


def read_sketches(
    connection: Connection, keys: Iterable[SketchKey]
) -> dict[SketchKey, tuple[bytes, ...]]:
    """The recorded sketches of some adapters; nothing for those that have none."""
    wanted = set(keys)
    digests = sorted({key.sha256 for key in wanted})
    columns = sketches.c
    found: dict[SketchKey, list[bytes]] = {}
    for start in range(0, len(digests), _AT_ONCE):
        query = (
            select(columns.base_digest, columns.sha256, columns.config_sha256, columns.sketch)
            .where(columns.sha256.in_(digests[start : start + _AT_ONCE]))
            .where(columns.version == SKETCH_VERSION)
            .order_by(columns.sha256, columns.reading)
        )
        for *key, sketch in connection.execute(query):
            if (known := SketchKey(*key)) in wanted:
                found.setdefault(known, []).append(bytes(sketch))
    return {key: tuple(made) for key, made in found.items()}
