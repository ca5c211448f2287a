"""Patterns of an adapter's configuration, matched as peft matches them and in bounded time.

Keys of `rank_pattern` and `alpha_pattern`, and `target_modules` given as one string, are regular
expressions for peft. They come from the uploader, so they are run by RE2, which is linear in time;
what it does not know, or knows otherwise, is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import re2

from loragate_server.intake.loader_rules.meaning import UnknownEffectError

Value = TypeVar("Value")

_ALIKE = re.compile(r"(?:[\w\-^$|()\[\]*+.]|\?(?!<)|\\[.\-dsw])*\Z", re.ASCII)
"""Spellings that mean the same to Python and to RE2 on names of layers."""
_MOST_PATTERNS = 2000
"""Twice as many as the largest models have layers. All of them are matched at once."""
_MEMORY_BYTES = 64 << 20
"""In which they are. Where RE2 needs more, it gives up or finds nothing, and we do not guess."""
_EVERYTHING = ".*"
_MOST_CONTAINERS = 20
_SHORTENED = 20
"""From so many names on peft looks for shorter ones, which indices restrict in another way."""
_EXTENSION = re.compile(r"\(\?|[*+?][*+?]|\[[^\]]*\[")


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    return options


def require_alike(field: str, pattern: str) -> None:
    """Refuses a pattern that RE2 would not run just as Python does.

    Raises:
        UnknownEffectError: it names the field and the pattern.
    """
    alike = _ALIKE.match(pattern) is not None and _EXTENSION.search(pattern) is None
    try:
        re2.compile(pattern, _options())
        re.compile(pattern)
    except (re2.error, re.error, RecursionError, OverflowError):
        alike = False
    if not alike:
        raise UnknownEffectError(f"{field} holds {pattern[:80]!r}, which is no plain pattern")


class FirstMatch(Generic[Value]):
    """The value of the first key that peft's `get_pattern_key` finds for a layer.

    Raises:
        UnknownEffectError: a key is no plain pattern, or there are too many to match.
    """

    def __init__(self, field: str, values: Mapping[str, Value], otherwise: Value) -> None:
        self._field = field
        # the last pattern matches everything: where it does not, the search was given up
        self._values = [*values.values(), otherwise]
        self._set = None
        if not values:
            return
        if len(values) > _MOST_PATTERNS:
            raise self._too_much()
        self._set = re2.Set.FullMatchSet(_options())
        for key in values:
            require_alike(field, key)
            self._set.Add(rf"(.*\.)?({key})")
        self._set.Add(_EVERYTHING)
        try:
            self._set.Compile()
        except re2.error as error:
            raise self._too_much() from error

    def of(self, layer: str) -> Value:
        """The value for the layer of this dotted name.

        Raises:
            UnknownEffectError: finding out takes too much memory.
        """
        if self._set is None:
            return self._values[-1]
        found = self._set.Match(layer)
        if not found:
            raise self._too_much()
        first: int = min(found)
        return self._values[first]

    def _too_much(self) -> UnknownEffectError:
        return UnknownEffectError(f"{self._field} holds more patterns than can be matched")


class Chosen:
    """Which layers peft adapts: `check_target_module_exists`.

    Args:
        targets: `target_modules`; None chooses nothing.
        excluded: `exclude_modules`.
        indices: `layers_to_transform`.
        containers: `layers_pattern`.
    """

    def __init__(
        self,
        targets: str | Iterable[str] | None,
        excluded: str | Iterable[str] | None = None,
        indices: Iterable[int] | int | None = None,
        containers: str | Iterable[str] | None = None,
    ) -> None:
        self._targets = _Names("target_modules", targets)
        self._excluded = _Names("exclude_modules", excluded)
        wanted = [indices] if isinstance(indices, int) else list(indices or ())
        # an index list is looked at only where the targets are a list
        self._indices = frozenset(wanted) if not isinstance(targets, str) else frozenset()
        self._whole = frozenset() if isinstance(targets, str) else frozenset(targets or ())
        if self._indices and len(self._whole) >= _SHORTENED:
            raise UnknownEffectError(f"layers_to_transform with {len(self._whole)} target_modules")
        named = [containers] if isinstance(containers, str) else list(containers or ())
        self._containers = [] if containers == "" else named
        if len(self._containers) > _MOST_CONTAINERS:
            raise UnknownEffectError(f"layers_pattern holds {len(self._containers)} patterns")
        for pattern in self._containers:
            require_alike("layers_pattern", pattern)

    def __contains__(self, layer: str) -> bool:
        if self._excluded.match(layer) or not self._targets.match(layer):
            return False
        # a layer named whole is adapted whatever its index
        if not self._indices or layer in self._whole:
            return True
        return self._index_of(layer) in self._indices

    def _index_of(self, layer: str) -> int | None:
        if not self._containers:
            found = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", layer)
            return int(found["idx"]) if found else None
        for pattern in self._containers:
            # the first index, as peft's lazy `.*?` finds it
            found = re2.match(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", layer, _options())
            if found:  # by an alternative without an index, perhaps
                return None if found["idx"] is None else int(found["idx"])
        return None


class _Names:
    """Names as a list (whole, or after a dot) or as one expression (whole)."""

    def __init__(self, field: str, names: str | Iterable[str] | None) -> None:
        self._expression = None
        self._ends: frozenset[str] = frozenset()
        if isinstance(names, str):
            require_alike(field, names)
            self._expression = re2.compile(names, _options())
        elif names is not None:
            self._ends = frozenset(names)

    def match(self, layer: str) -> bool:
        if self._expression is not None:
            return self._expression.fullmatch(layer) is not None
        parts = layer.split(".")
        return any(".".join(parts[start:]) in self._ends for start in range(len(parts)))
