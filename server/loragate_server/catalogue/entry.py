"""`Entry`: one file of a catalogue, and the columns in which entries travel between stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loragate_server.adapter.reference import AdapterReference


@dataclass(frozen=True)
class Entry:
    """One file that a source lists.

    Attributes:
        location: absolute path, or address for fsspec; names the file in results.
        version: changes when the file does, as far as its source tells without reading it.
        sha256: that a manifest promises; "" where it promises none.
        name: how people call it; "" for the end of the location.
        metadata: JSON object with what else a manifest says; nothing is decided by it.
        fault: why it cannot even be read; "" where nothing speaks against trying.
        changed_unix_s: when a local file was changed last; 0 where that is not known.
    """

    location: str
    version: str = ""
    sha256: str = ""
    name: str = ""
    metadata: str = "{}"
    fault: str = ""
    changed_unix_s: float = field(default=0.0, compare=False)

    @property
    def remote(self) -> bool:
        """Whether it is an address and no path."""
        return "://" in self.location

    @property
    def reference(self) -> AdapterReference:
        """Where intake finds it."""
        path, uri = (None, self.location) if self.remote else (self.location, None)
        return AdapterReference(path=path, uri=uri, expected_sha256=self.sha256 or None)

    @property
    def row(self) -> dict[str, Any]:
        """As stages hand it on."""
        return {
            "location": self.location,
            "version": self.version,
            "expected_sha256": self.sha256,
            "name": self.name,
            "metadata": self.metadata,
            "fault": self.fault,
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Entry:
        """The entry of a row."""
        words = ("location", "version", "expected_sha256", "name", "metadata", "fault")
        return cls(*(row[word] for word in words))


def key_of(sha256: str, config_sha256: str) -> str:
    """What a file is audited as, once: its bytes, and the configuration that scales them."""
    return f"{sha256}.{config_sha256}" if config_sha256 else sha256
