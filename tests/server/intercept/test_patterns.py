"""No pattern that meets a request's text tries the same letters again and again."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from loragate_server import intercept

LETTERS = 12_000
SHORT = 22
"""Repetitions after which a pattern with two ways to read each would take seconds."""
MOST_S = 0.015
"""A pattern that goes over so many letters once takes a tenth of this; one that goes over them
once for each takes several times as long."""
ALWAYS = ("1", "0", " ", "_", "<", ":", "{", "|", "/", "%41", "\\u0041", "a", "A.", "-", "\n", ",")
ENDS = ("", "!", "\n")


@dataclass(frozen=True)
class Used:
    """A pattern, and the methods by which its module applies it."""

    pattern: re.Pattern[str]
    methods: frozenset[str]

    def seconds(self, text: str) -> float:
        """What all of them take for a text."""
        began = time.process_time()
        for method in self.methods:
            if method in ("search", "match", "fullmatch"):
                getattr(self.pattern, method)(text)
            else:  # findall, sub and split go over a text in the same way
                sum(1 for _ in self.pattern.finditer(text))
        return time.process_time() - began


def patterns() -> Iterator[tuple[str, Used]]:
    """Those of all modules, by where they stand, those inside functions too."""
    for found in pkgutil.walk_packages(intercept.__path__, f"{intercept.__name__}."):
        module = importlib.import_module(found.name)
        tree = ast.parse(Path(module.__file__ or "").read_text())
        methods: dict[str, set[str]] = {}
        names: dict[int, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                methods.setdefault(node.value.id, set()).add(node.attr)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names[node.value.lineno] = node.targets[0].id
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and re.fullmatch(r"re\.\w+", ast.unparse(call.func)):
                place = f"{found.name.removeprefix(intercept.__name__)}:{call.lineno}"
                own = {ast.unparse(call.func).removeprefix("re.")}
                own_flags = own == {"compile"}
                if own == {"compile"}:  # of what hands a pattern on, all are applied to whole names
                    own = methods.get(names.get(call.lineno, ""), {"fullmatch"})
                assert isinstance(call.args[0], ast.Constant), f"{place} is no literal"
                flags = _flags(call) if own_flags else 0
                compiled = re.compile(str(call.args[0].value), flags)
                yield place, Used(compiled, frozenset(own))


def _flags(call: ast.Call) -> int:
    """Only the flags of `re.compile` change how a pattern is read here."""
    flags = 0
    for given in call.args[1:]:
        for node in ast.walk(given):
            if isinstance(node, ast.Attribute) and isinstance(flag := getattr(re, node.attr), int):
                flags |= flag
    return flags


PATTERNS = dict(patterns())


def units_of(pattern: re.Pattern[str]) -> set[str]:
    """What to repeat: the words of a pattern, alone and as parts of longer ones."""
    plain = re.sub(r"\\[a-zA-Z]|\(\?\w*[:=!<]", " ", pattern.pattern)
    words = set(re.findall(r"[A-Za-z]{2,}", plain))
    words |= set(re.findall(r"<\w+>?", plain))
    return {*ALWAYS, *words, *(f"_{word}" for word in words), *(f"{word}1" for word in words)}


def texts_for(pattern: re.Pattern[str], times: int) -> Iterator[str]:
    units = sorted(units_of(pattern))
    begins = ["", *(one for one in units if one.isalpha()), "__", "<"]
    for begin, unit, end in product(begins, units, ENDS):
        yield begin + unit * (times if times == SHORT else times // len(unit)) + end


@pytest.mark.parametrize("where", PATTERNS)
def test_a_pattern_goes_over_a_text_once(where: str) -> None:
    used = PATTERNS[where]
    for times in (SHORT, LETTERS):
        for text in texts_for(used.pattern, times):
            if used.seconds(text) > MOST_S:
                least = min(used.seconds(text) for _ in range(3))
                assert least < MOST_S, f"{text[:60]!r}... takes {least * 1e3:.0f} ms"


def test_the_patterns_of_all_readers_are_looked_at() -> None:
    assert len(PATTERNS) > 60
    words = [used for place, used in PATTERNS.items() if place.startswith(".reading.lora_words:")]
    assert [used.methods for used in words] == [frozenset({"search"}), frozenset({"sub"})]
