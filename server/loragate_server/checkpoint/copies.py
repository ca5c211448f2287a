"""The audited copies: where they lie, how the image server sees them, and how long they stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Protocol

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.intake import IntakeDesk
from loragate_server.progress import Leash

MOST_AT_ONCE = 64
"""Adapters of one request that are copied; the policy, which is asked later, allows fewer."""


class Store(Protocol):
    """What the checkpoint needs of `loragate_server.intake.fetch.Intake`; thread-safe.

    Intake itself is behind the gate: the checkpoint has no other way to a file than through it.
    """

    @property
    def store_dir(self) -> Path:
        """The folder that the audited copies lie in."""
        ...

    def keep(self, sha256: str, seconds: float) -> Path | None:
        """The copy with this digest, which stays for so long; None where there is none."""
        ...


class AuditedCopies:
    """Finds the copies of what was audited.

    Args:
        desk: takes files in, for a door that has to know the copy before it asks.
        store: holds them.
        audited_root: the store's folder as the image server sees it; None where both see it alike.
        keep_s: how long a copy that may be loaded is not deleted.
    """

    def __init__(
        self, desk: IntakeDesk, store: Store, audited_root: PurePath | None, keep_s: float
    ) -> None:
        self._desk = desk
        self._store = store
        self._root = audited_root
        self._keep_s = keep_s

    async def pin(
        self, references: tuple[AdapterReference, ...], leash: Leash
    ) -> tuple[AdapterReference, ...]:
        """The same adapters, named by the digests of copies that are in the store now.

        Whatever becomes of the files that the request named, the audit reads the copies.

        Raises:
            NoDecisionError: whatever intake refuses; REQUEST_INVALID for too many adapters;
                ADAPTER_METADATA_INVALID for an adapter with settings in a file beside it, which a
                path to its weights leaves behind.
        """
        if len(references) > MOST_AT_ONCE:
            raise NoDecisionError(
                ErrorReason.REQUEST_INVALID,
                f"The request names {len(references)} adapters.",
                remedy=f"Load at most {MOST_AT_ONCE} at once.",
                metadata={"field": "adapters"},
            )
        files = await self._desk.fetch(references, leash)
        return tuple(_pinned(one, file) for one, file in zip(references, files, strict=True))

    async def paths(self, digests: tuple[str, ...], leash: Leash, *, keep: bool) -> dict[int, str]:
        """The copies of these digests as the image server sees them, by their numbers.

        Args:
            digests: of the adapters of a request, in order.
            leash: holds while somebody waits for them.
            keep: whether they are about to be loaded.

        Raises:
            NoDecisionError: ADAPTER_NOT_STORED for one that was deleted or changed meanwhile;
                DEADLINE_EXCEEDED.
        """
        seconds = self._keep_s if keep else 0.0
        # On a thread: a copy is read again unless it is proven that nobody has changed it.
        copies = await self._desk.run(
            lambda: [self._find(sha256, seconds) for sha256 in digests], leash
        )
        return {number: self._seen(path) for number, path in enumerate(copies)}

    def _find(self, sha256: str, keep_s: float) -> Path:
        path = self._store.keep(sha256, keep_s)
        if path is None:
            raise NoDecisionError(
                ErrorReason.ADAPTER_NOT_STORED,
                f"The audited copy with sha256 {sha256[:64]} is no longer stored.",
                remedy="Ask again; if it happens often, raise intake.store_limit_bytes.",
                metadata={"sha256": sha256[:64]},
                retry_after_s=1.0,
            )
        return path

    def _seen(self, path: Path) -> str:
        if self._root is None:
            return str(path)
        return str(self._root / path.relative_to(self._store.store_dir))


def _pinned(reference: AdapterReference, file: StoredFile) -> AdapterReference:
    if file.config_json is not None:
        raise NoDecisionError(
            ErrorReason.ADAPTER_METADATA_INVALID,
            "The adapter has an adapter_config.json beside its weights, which a path to the "
            "audited weights leaves behind.",
            remedy="Keep the configuration in the header of the file, or guard this server with "
            "ext_authz, which does not rewrite.",
        )
    return replace(
        reference,
        path=None,
        uri=None,
        inline_bytes=None,
        stored_sha256=file.sha256,
        weight_name=None,
        revision=None,
    )
