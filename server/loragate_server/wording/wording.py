"""The sentences of one language, with numbers and times as that language writes them."""

from __future__ import annotations

import math
from collections import ChainMap
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_decimal

from loragate_server.wording.catalogue import DEFAULT_LANGUAGE, Catalogue, Sentence
from loragate_server.wording.printable import printable

NO_NUMBER = "–"
SMALLEST_P = 1e-6
"""Smaller p-values are not told apart."""


class Wording:
    """The sentences of some catalogues in one language."""

    recorded = DEFAULT_LANGUAGE
    """Language of what the record holds, whatever language the page around it has."""

    def __init__(self, language: str, *catalogues: Catalogue) -> None:
        """Where catalogues share a key, the first one counts."""
        self.language = language
        self._locale = Locale.parse(language, sep="-")
        self._sentences = ChainMap(*(dict(one.sentences(language)) for one in catalogues))

    def __call__(self, key: str, **facts: object) -> str:
        """The sentence of a key, with its {names} filled in; whole numbers as `count` writes them.

        Raises:
            KeyError: there is no such key, or a name is not given.
        """
        [sentence] = self.every(key, **facts)
        return sentence

    def every(self, key: str, **facts: object) -> tuple[str, ...]:
        """All sentences of a key that holds a list; KeyError as in a call."""
        shown = {
            name: self.count(fact) if isinstance(fact, int) else fact
            for name, fact in facts.items()
        }
        return tuple(
            self._form(sentence, facts).format(**shown) for sentence in self._sentences[key]
        )

    def _form(self, sentence: Sentence, facts: dict[str, object]) -> str:
        """The sentence in the plural form that its fact `count` asks for, where it has forms."""
        if isinstance(sentence, str):
            return sentence
        category = self._locale.plural_form(cast(int, facts["count"]))
        return sentence.get(category, sentence["other"])

    def known(self, key: str) -> bool:
        """Whether there is a sentence for the key."""
        return key in self._sentences

    def name(self, kind: str, value: str) -> str:
        """The word for a value that a library may extend, such as a category; else the value."""
        key = f"{kind}.{value}"
        return self(key) if self.known(key) else printable(value)

    def language_name(self, language: str) -> str:
        """What this language calls a language."""
        return Locale.parse(language, sep="-").get_display_name(self._locale) or language

    def moment(self, at: datetime) -> str:
        """A timezone-aware time in UTC, and where readers share a time in their own as well."""
        local = at.astimezone(ZoneInfo(self("time.zone")))
        return self(
            "time.moment",
            utc=f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
            local=f"{format_date(local, 'long', self._locale)} {local:%H:%M:%S}",
        )

    def short_moment(self, at: datetime) -> str:
        """A time for a table whose head says that it is UTC."""
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"

    def count(self, number: int) -> str:
        """A whole number, in groups of digits."""
        return format_decimal(number, locale=self._locale)

    def decimal(self, value: float, digits: int = 1) -> str:
        """A number with so many digits after the point, infinity as a sign, a dash for none."""
        if math.isnan(value):
            return NO_NUMBER
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        # Python rounds, so that every language shows the same figure.
        rounded = Decimal(f"{value:.{digits}f}")
        return self._exactly(rounded or abs(rounded))

    def short(self, value: float) -> str:
        """A number with as many digits as it needs, six at most."""
        return self._exactly(Decimal(f"{value:g}"))

    def percent(self, share: float) -> str:
        """A share of 0 to 1."""
        return f"{self.decimal(100 * share)} %"

    def p_value(self, value: float) -> str:
        """A p-value with two significant digits and no exponent, which laymen do not read."""
        if not 0 <= value <= 1:
            return NO_NUMBER
        if value < SMALLEST_P:
            return f"< {self.decimal(SMALLEST_P, 6)}"
        return self._exactly(Decimal(f"{value:.2g}"))

    def _exactly(self, number: Decimal) -> str:
        """All digits that the number has, and no more."""
        digits = max(0, -int(number.as_tuple().exponent))
        pattern = f"0.{'0' * digits}" if digits else "0"
        return format_decimal(number, pattern, self._locale).replace("-", "−")
