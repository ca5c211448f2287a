"""What the checkpoint is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointSettings:
    """What the checkpoint is told.

    Attributes:
        default_extractor: for proxies that name none; empty where each has to.
        dry_run: everything passes; log and metrics tell what would not have.
        review_passes: whether a request passes whose adapters need a person's look.
        max_body_bytes: larger bodies do not pass.
    """

    default_extractor: str = ""
    dry_run: bool = False
    review_passes: bool = False
    max_body_bytes: int = 4 << 20
