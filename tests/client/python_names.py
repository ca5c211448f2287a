"""Words that tell a user nothing: the names of Python's and the SDK's classes and functions."""

from __future__ import annotations

import builtins
import re

from loragate import errors

_CLASSES = {
    name
    for module in (builtins, errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
# Common words that are classes as well.
_CLASSES -= {"Cancelled", "Exhausted", "Internal", "NotFound", "Unavailable"}
_MARKS = ("Errno", "Traceback", "TlsConfig", "object at 0x", "_seconds", "_count", "None")


def assert_no_python(text: str) -> None:
    """Fails where a text that a user sees has such a name in it."""
    words = set(re.findall(r"[A-Za-z_]+", text))
    found = (words & _CLASSES) | {mark for mark in _MARKS if mark in text}
    assert not found, text
