"""Turns the findings of pydantic into sentences for the person who wrote the policy file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from loragate_server.policy.document import KNOWN_KEYS
from loragate_server.policy.source import Location


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the policy file.

    Attributes:
        location: keys and indices that lead to the setting.
        at_key: whether the key, not the value, is what is wrong.
    """

    location: Location
    problem: str
    remedy: str
    at_key: bool = False

    def text(self) -> str:
        """Setting, problem and remedy, on one line."""
        line = f"{dotted(self.location)}: {self.problem}; {self.remedy}"
        return line.replace("\r", " ").replace("\n", " ")


def dotted(location: Location) -> str:
    """Writes ("rules", 0, "name") as rules[0].name; the whole file is "(file)"."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(file)"


def explain(error: ValidationError) -> list[Problem]:
    """One problem per finding of pydantic."""
    return [_explain_one(details) for details in error.errors(include_url=False)]


_RULES: Mapping[str, tuple[str, str]] = {
    "string_type": ("must be text, found {found}", "Put the value in quotes."),
    "float_type": ("must be a number, found {found}", "Give a number without quotes."),
    "int_type": ("must be a whole number, found {found}", "Give a whole number without quotes."),
    "finite_number": ("must be a finite number, found {found}", "Give a finite number."),
    "literal_error": ("must be {expected}, found {found}", "Use one of these, in lower case."),
    "greater_than": ("must be above {gt}, found {found}", "Raise it."),
    "greater_than_equal": ("must be at least {ge}, found {found}", "Raise it."),
    "less_than": ("must be below {lt}, found {found}", "Lower it."),
    "less_than_equal": ("must be at most {le}, found {found}", "Lower it."),
    "date_type": ("must be a day, found {found}", "Write it like 2030-12-31, without quotes."),
    "model_type": ("must be a mapping, found {found}", "Write indented lines `key: value`."),
    "model_attributes_type": ("must be a mapping, found {found}", "Write lines `key: value`."),
    "list_type": ("must be a list, found {found}", "Write one `- ` line per entry."),
    "too_short": ("is an empty list", "Name at least one entry, or remove the line."),
    "string_too_short": ("is empty", "Say something, so that others understand the entry."),
    "string_too_long": ("has more than {max_length} characters", "Shorten it."),
    "string_pattern_mismatch": (
        "must be a sha256 of 64 hexadecimal digits, found {found}",
        "Copy the output of `sha256sum FILE`.",
    ),
    "missing": ("is missing", "Add it."),
}


def _explain_one(details: Any) -> Problem:
    kind = str(details["type"])
    location: Location = tuple(details["loc"])
    if kind == "extra_forbidden":
        return Problem(location, "is not a known setting", _closest(str(location[-1])), at_key=True)
    found = repr(details.get("input"))
    found = found if len(found) <= 60 else found[:57] + "..."
    facts = {**(details.get("ctx") or {}), "found": found}
    if kind not in _RULES:
        return Problem(location, str(details["msg"]), "Correct it.")
    problem, remedy = _RULES[kind]
    return Problem(location, problem.format_map(facts), remedy)


def _closest(name: str) -> str:
    guesses = difflib.get_close_matches(name, KNOWN_KEYS, n=1)
    return f"Remove it, or did you mean {guesses[0]!r}?" if guesses else "Remove it."
