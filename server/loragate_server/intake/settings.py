"""What intake may read, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class IntakeSettings:
    """Limits and sources.

    Attributes:
        roots: folders that paths may point into; none means that paths are refused.
        store_dir: the content-addressed store.
        store_limit_bytes: size above which the files used longest ago are deleted.
        max_file_bytes: largest adapter file.
        max_header_bytes: largest safetensors header.
        max_tensors: most tensors in a file.
        max_name_length: longest tensor name, in characters.
        max_metadata_bytes: largest header metadata and adapter_config.json.
        enabled_schemes: URI schemes that may be fetched, for example {"hf", "https", "s3"}.
        scrub_interval_s: seconds between two looks through all that is stored.
        fetch_timeout_s: seconds without a byte after which a remote source is given up.
    """

    roots: tuple[Path, ...]
    store_dir: Path
    store_limit_bytes: int = 20 * 2**30
    max_file_bytes: int = 2 * 2**30
    max_header_bytes: int = 8 * 2**20
    max_tensors: int = 20_000
    max_name_length: int = 512
    max_metadata_bytes: int = 2**20
    enabled_schemes: frozenset[str] = frozenset()
    fetch_timeout_s: float = 60.0
    scrub_interval_s: float = 86_400.0
