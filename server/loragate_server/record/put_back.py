"""Inserts a row as its line in the decision log says it, without signed form and sketches.

Others are told of it as of any row: whether they were told before the database lost it, nobody
knows, and an event that comes twice has the same id.
"""

from __future__ import annotations

from typing import Any

from loragate_server.record.codec import decode_verdict, parse_review, to_json
from loragate_server.record.database import Database
from loragate_server.record.reviews.rows import insert_review


def put_back(database: Database, entry: dict[str, Any]) -> None:
    """Inserts a decision or a review, as its line says it.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE or DISK_FULL.
    """
    if entry["kind"] == "decision":
        verdict = decode_verdict(entry["verdict"])
        database.insert(verdict, to_json(entry["verdict"]), lambda: None)
    else:
        text = to_json(entry["review"])
        with database.writing() as connection:
            review = parse_review(text)
            insert_review(connection, review, text)
            database.announcer.reviewed(connection, review)
