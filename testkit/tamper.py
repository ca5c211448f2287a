"""Ways to bend a decision log, and what finds each: the table of docs/tamper-evidence.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from loragate_server.record.chain import GENESIS, digest
from loragate_server.record.codec import to_json

LINES = 6
"""Decisions in the logs that are bent."""


@dataclass(frozen=True)
class Tampering:
    """One way.

    Attributes:
        bend: bytes of a log to bytes of the bent one.
        by_chain: whether the chain alone shows it; a checkpoint shows all of them.
    """

    name: str
    bend: Callable[[bytes], bytes]
    by_chain: bool


def rechained(data: bytes) -> bytes:
    """The lines again, with numbers and digests as an honest writer would have made them."""
    made, prev = [], GENESIS
    for seq, line in enumerate(data.splitlines(), start=1):
        body = to_json({**json.loads(line), "seq": seq, "prev": prev}).encode()
        prev = digest(body)
        made.append(body + b"\n")
    return b"".join(made)


def _lines(data: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return b"".join(change(data.splitlines(keepends=True)))


def _swapped(data: bytes) -> bytes:
    return _lines(data, lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]])


def _dropped(data: bytes) -> bytes:
    return _lines(data, lambda lines: [*lines[:2], *lines[3:]])


def _cut(data: bytes) -> bytes:
    return _lines(data, lambda lines: lines[:-2])


def _changed(data: bytes) -> bytes:
    return data.replace(b'"d2"', b'"e2"')


def _changed_last(data: bytes) -> bytes:
    return data.replace(b'"d%d"' % (LINES - 1), b'"e%d"' % (LINES - 1))


def _inserted(data: bytes) -> bytes:
    return _lines(data, lambda lines: [*lines[:3], lines[1], *lines[3:]])


def _backdated(data: bytes) -> bytes:
    return data.replace(b'"time":"2', b'"time":"1')


def _forked(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    entry = {**json.loads(lines[-1]), "verdict": {"decision_id": "another"}}
    return rechained(b"".join(lines[:-1]) + to_json(entry).encode() + b"\n")


def _anew(bend: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: rechained(bend(data))


TAMPERINGS = (
    Tampering("a changed line", _changed, by_chain=True),
    Tampering("a changed last line", _changed_last, by_chain=False),
    Tampering("a removed line", _dropped, by_chain=True),
    Tampering("an inserted line", _inserted, by_chain=True),
    Tampering("two lines swapped", _swapped, by_chain=True),
    Tampering("the tail cut off, or a replica rolled back", _cut, by_chain=False),
    Tampering("a changed line, and the chain written anew", _anew(_changed), by_chain=False),
    Tampering("a removed line, and the chain written anew", _anew(_dropped), by_chain=False),
    Tampering("changed times, and the chain written anew", _anew(_backdated), by_chain=False),
    Tampering("another last line (a fork)", _forked, by_chain=False),
)
