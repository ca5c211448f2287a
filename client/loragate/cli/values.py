"""Reads the values of options; what is wrong with one is said without names of Python."""

from __future__ import annotations

import argparse
import math
import re
from datetime import UTC, datetime

from loragate.reference import is_sha256


def _number(text: str, what: str) -> float:
    """A finite number; argparse would name the Python function that read it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def place(text: str) -> str:
    """A file, folder, address or id. A shell makes nothing of a variable that is not set.

    Taken for a path, that would be the present folder: `gate-dir --quarantine` would empty it.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty; give it a value, or leave it out")
    return text


def device(text: str) -> str:
    """A device, as the engine knows it."""
    if text and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not cpu, cuda, or one such as cuda:1")
    return text


def seconds(text: str) -> float:
    """A positive number of seconds."""
    what = "a positive number of seconds"
    value = _number(text, what)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def strength(text: str) -> float:
    """A finite number."""
    return _number(text, "a strength, which is a number such as 0.8")


def count(text: str) -> int:
    """A positive whole number."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def moment(text: str) -> datetime:
    """A day, which begins at midnight UTC, or a time, which is of UTC unless it says otherwise."""
    try:
        read = datetime.fromisoformat(text)
        return read if read.tzinfo else read.replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a moment, which is a day or a time such as 2026-11-29T14:00+01:00"
        ) from None


def sha256(text: str) -> str:
    """A sha256, in small letters."""
    if not is_sha256(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a sha256, which has 64 hexadecimal digits; --json and `loragate get` "
            "show digests in full"
        )
    return text.lower()
