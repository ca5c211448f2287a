"""`AdapterReference`: where an adapter's bytes are, and how it will be used. Loads no torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["lora", "embedding"]
"""What a file is sent as: weights of a LoRA, or the rows of a new word."""

SOURCES = "path, uri, inline_bytes and stored_sha256"
"""The names of the sources, for messages."""

SHA256_REMEDY = "Send 64 lower-case hexadecimal digits."

MAX_NAME_LETTERS = 256
"""Letters of a name for people."""

_SHA256 = re.compile("[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether `text` is a sha256 in lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


@dataclass(frozen=True)
class Strength:
    """How strongly the image server will apply an adapter; 1 is as trained."""

    denoiser: float = 1.0
    text_encoder: float = 1.0


@dataclass(frozen=True)
class AdapterReference:
    """Where the bytes of an adapter are and how it will be used. Exactly one source is set.

    The sources are `path`, `uri`, `inline_bytes`, and `stored_sha256` for bytes already taken in.

    Attributes:
        strength: at which it will be used.
        also: further strengths at which it may be used instead, where a request can be read so.
        optional: whether the image server may leave it out and load the others without it.
        kind: what the file is sent as; one of the other kind is refused.
        declared_name: how the caller calls it, for people; nothing is decided by it.
    """

    path: str | None = None
    uri: str | None = None
    inline_bytes: bytes | None = field(default=None, repr=False)
    stored_sha256: str | None = None
    weight_name: str | None = None
    revision: str | None = None
    expected_sha256: str | None = None
    strength: Strength = Strength()
    also: tuple[Strength, ...] = ()
    optional: bool = False
    kind: Kind = "lora"
    declared_name: str = field(default="", compare=False)

    @property
    def shown_name(self) -> str:
        """How the caller calls it, else the end of the path that he asks about; "" for neither."""
        return self.declared_name or (self.path or "")[-MAX_NAME_LETTERS:]

    @property
    def strengths(self) -> tuple[Strength, ...]:
        """Every strength at which it may be used, the first one first, each once."""
        return tuple(dict.fromkeys((self.strength, *self.also)))

    @property
    def source_count(self) -> int:
        """How many sources are set."""
        sources = (self.path, self.uri, self.inline_bytes, self.stored_sha256)
        return sum(source is not None for source in sources)


@dataclass(frozen=True)
class StoredFile:
    """Bytes that intake holds in its content-addressed store, already checked by the pre-parser.

    Attributes:
        config_json: the text of the `adapter_config.json` that lay beside the weights, if any.
        weights_sha256: digest of the tensors alone, which files share that differ in their metadata
            only (`intake.weights`); empty where nobody has made it.
    """

    sha256: str
    size_bytes: int
    path: Path
    config_json: str | None = None
    weights_sha256: str = ""

    @property
    def config_sha256(self) -> str:
        """Digest of the configuration, which sets scales; empty where there is none."""
        text = self.config_json
        return "" if text is None else hashlib.sha256(text.encode()).hexdigest()
