"""What the name of a field says: that it holds an adapter, how strong one is, or neither."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

# English has words that hold the letters by chance: exploration, colorado, flora, deplorable.
# Where a capital begins LoRA in the middle of a word, it is no English one.
_LORA = re.compile(
    r"""
    (?<!exp)(?<!co)(?<!f)(?<!dep)(?<!imp)(?<!ch)(?<!va)(?<!do)(?<!phy)(?<!pe)(?<!folk)
    lora(?!zepam|tadine|i?n(?![a-z]))
    | lyco | locon | loha | lokr
    """,
    re.VERBOSE,
)
_HUMP = re.compile(
    r"(?<![A-Z])L(?:oRA|ora|oRa|ORA(?![A-Z]{2}))(?!zepam|tadine|i?n(?![a-z]))|[a-z]LoRA"
)
_TAILOR_ALL = re.compile(r"lorA(?=[a-z])")  # a word that ends in "lor", and another one
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_WEIGHTS = re.compile(r"(?:(?:replicate|custom|extra|adapter|peft)_?)?weights?(?:_url|_path)?")

_STRENGTHS = {"scale", "strength", "weight", "multiplier", "factor", "intensity"}
_TELLING = {
    *("alpha", "count", "enabled", "enable", "help", "key", "merge", "mode", "num", "prompt"),
    *("rank", "secret", "token", "trigger", "triggers", "version"),
}
"""What a field that speaks of LoRA may end in, and tells something about one rather than which."""

_OTHER_ADAPTERS = {"ip", "controlnet", "control", "image"}
_PLURALS = {"loras": "lora", "adapters": "adapter", "scales": "scale", "strengths": "strength"}


class Meaning(Enum):
    """What a field holds, by its name."""

    ADAPTER = auto()
    STRENGTH = auto()
    NOTHING = auto()


@dataclass(frozen=True)
class Names:
    """Knows fields by their names.

    Attributes:
        also: further names of fields that hold adapters.
        but_not: names of fields that hold none, whatever they sound like.
    """

    also: frozenset[str] = frozenset()
    but_not: frozenset[str] = frozenset()

    @classmethod
    def of(cls, also: Collection[str], but_not: Collection[str]) -> Names:
        """From what users write, in any letters.

        Raises:
            ValueError: a name is in both, or one text was given instead of several.
        """
        for given in (also, but_not):
            if isinstance(given, str):
                raise ValueError(f"Give names as a list, not as the text {given!r}.")
        made = cls(frozenset(map(str.lower, also)), frozenset(map(str.lower, but_not)))
        if both := sorted(made.also & made.but_not):
            raise ValueError(f"The field {both[0]!r} cannot be asked about and be left out.")
        return made

    def meaning(self, name: str) -> Meaning:
        """What a field of this name holds."""
        lowered = name.lower()
        if lowered in self.but_not:
            return Meaning.NOTHING
        if lowered in self.also:
            return Meaning.ADAPTER
        if not speaks_of_adapter(name):
            return Meaning.NOTHING
        last = last_word(name)
        if last in _STRENGTHS:
            return Meaning.STRENGTH
        return Meaning.NOTHING if last in _TELLING else Meaning.ADAPTER


def speaks_of_lora(text: str) -> bool:
    """Whether a text holds "lora" or one of its kin, in any letters, other than by chance."""
    plain = _TAILOR_ALL.sub("", text)
    return bool(_HUMP.search(plain) or _LORA.search(plain.lower()))


def speaks_of_adapter(name: str) -> bool:
    """Whether the name of a field speaks of a LoRA, an adapter, or weights beside the model's."""
    parts = set(words(name))
    if speaks_of_lora(name) or _WEIGHTS.fullmatch("_".join(words(name))):
        return True
    is_other = parts & _OTHER_ADAPTERS or "t2i" in name.lower()
    return bool(parts & {"adapter", "peft"}) and not is_other


def words(name: str) -> list[str]:
    """The words of a name in small letters: loraScale_2 is lora, scale, 2; plurals are singular."""
    found = [word.lower() for word in _WORD.findall(_whole(name))]
    return [_PLURALS.get(word, word) for word in found]


def last_word(name: str) -> str:
    """The last word of a name, before a number at its end."""
    return next((word for word in reversed(words(name)) if not word.isdigit()), "")


def stem(name: str) -> frozenset[str]:
    """By which words of two names a strength belongs to an adapter."""
    ends = {*_STRENGTHS, "path", "url", "uri", "file", "name", "id", "list", "model", "weights"}
    return frozenset(words(name)) - ends


def _whole(name: str) -> str:
    """LoRA is one word, though it looks like three."""
    return re.sub(r"[Ll]o[Rr][Aa](?=s?(?![a-z]))", "Lora", name)
