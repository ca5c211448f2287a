"""The sections `checkpoints` and `witness`: who is told what the decision log holds, and who asks.

A witness is a server that signs checkpoints of others, and refuses one that bends what it has seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from loragate_server.config.section import PositiveSeconds, Section
from loragate_server.config.signing import SigningKey

NoteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]


class WitnessAddress(Section):
    """A witness that is asked to sign.

    Attributes:
        name: under which it signs.
        url: what `/add-checkpoint` is appended to; of another loragate `http://host:9464/witness`.
        public_key: its public key, Ed25519 in PEM.
    """

    name: NoteName
    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    public_key: Path


class CheckpointsSection(Section):
    """The tree over the decision log, whose size and root are signed and handed out.

    Attributes:
        name: first part of the tree's name; a random second part keeps replicas apart.
        interval_s: between two checkpoints while lines are written.
        key: signs checkpoints alone, Ed25519; without it those of `signing.keys` that are Ed25519.
        copies: folders, or URLs of fsspec such as `s3://bucket/loragate`, that get each checkpoint.
        witnesses: servers that sign each checkpoint as well.
        stop_after_s: nothing is decided while lines are longer than this in no checkpoint that all
            of `copies` and `witnesses` have taken; never when not set.
    """

    enabled: bool = False
    name: NoteName = "loragate"
    interval_s: PositiveSeconds = 30.0
    key: SigningKey | None = None
    copies: tuple[str, ...] = ()
    witnesses: tuple[WitnessAddress, ...] = ()
    stop_after_s: PositiveSeconds | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [one.name for one in self.witnesses]
        if len(set(names)) != len(names) or len(set(self.copies)) != len(self.copies):
            raise ValueError("copies or witnesses name one twice")
        if self.stop_after_s is not None:
            if not (self.copies or self.witnesses):
                raise ValueError("stop_after_s needs copies or witnesses")
            if self.stop_after_s < 2 * self.interval_s:
                raise ValueError("stop_after_s is at least twice interval_s")
        return self


class WitnessSection(Section):
    """Signs checkpoints of other servers at `/witness` on the HTTP port, where there is a key.

    Attributes:
        name: under which it signs; readers know it together with the key.
        key: Ed25519, for this alone.
        logs: public keys (PEM) of the servers whose checkpoints it signs; of one that changes its
            key, a list of both. Nobody signs for the tree of another.
    """

    name: NoteName = "loragate-witness"
    key: SigningKey | None = None
    logs: tuple[Path | tuple[Path, ...], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.logs) != (self.key is not None):
            raise ValueError("key and logs belong together: whose checkpoints are signed")
        if () in self.logs:
            raise ValueError("logs: a list of no keys is no log")
        return self

    @property
    def keys_of_logs(self) -> tuple[tuple[Path, ...], ...]:
        """The files of the keys of each log."""
        every = (one if isinstance(one, tuple) else (one,) for one in self.logs)
        return tuple(tuple(file.expanduser() for file in one) for one in every)
