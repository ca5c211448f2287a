"""The section `intercept` of the configuration: the doors for proxies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from loragate_server.config.listen import MESSAGE_BYTES
from loragate_server.config.section import MIB, Positive, PositiveSeconds, Section

ExtractorName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class ExtractorEntry(Section):
    """How the requests of one image server are read.

    Attributes:
        kind: which image server it is.
        settings: what the kind can be told.
    """

    kind: str = Field(min_length=1, max_length=64)
    settings: dict[str, Any] = Field(default={})


class InterceptSection(Section):
    """The doors for proxies that ask before they pass a request on.

    Attributes:
        extractors: by the name that proxies and metrics use.
        default_extractor: for proxies that name none; the only extractor when not set.
        dry_run: everything passes; log and metrics tell what would not have.
        on_review: what a request gets whose adapters need a person's look.
        max_body_bytes: larger bodies do not pass.
        reading_s: processor time that reading one request may take.
        http: answer `/v1/check` on the HTTP port.
        http_timeout_s: time that a check on the HTTP port may take.
        audited_root: the store of audited files as the image server sees it.
        keep_s: how long an audited file that may be loaded is not deleted.
    """

    extractors: dict[ExtractorName, ExtractorEntry] = Field(default={})
    default_extractor: str = ""
    dry_run: bool = False
    on_review: Literal["deny", "allow"] = "deny"
    max_body_bytes: Positive = 32 * MIB
    reading_s: PositiveSeconds = 2.0
    http: bool = False
    http_timeout_s: PositiveSeconds = 30.0
    audited_root: Path | None = None
    keep_s: PositiveSeconds = 3600.0

    @property
    def chosen_extractor(self) -> str:
        """The extractor for proxies that name none; empty where there is no such thing."""
        if self.default_extractor or len(self.extractors) != 1:
            return self.default_extractor
        return next(iter(self.extractors))

    @property
    def review_passes(self) -> bool:
        """Whether a request passes whose adapters need a person's look."""
        return self.on_review == "allow"

    @property
    def message_bytes(self) -> int:
        """Room for the largest body that a proxy may show, and for all that it tells beside it."""
        if not self.extractors:
            return MESSAGE_BYTES
        return max(MESSAGE_BYTES, self.max_body_bytes + MIB)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = ", ".join(sorted(self.extractors)) or "none"
        if self.default_extractor and self.default_extractor not in self.extractors:
            raise ValueError(
                f"default_extractor {self.default_extractor!r} is not one of extractors: {known}"
            )
        if "none" in self.extractors:
            raise ValueError("no extractor can be named 'none'; metrics use it where there is none")
        if self.http and not self.extractors:
            raise ValueError("http needs extractors, which say how requests are read")
        if self.audited_root is not None and not self.audited_root.is_absolute():
            raise ValueError(f"audited_root {self.audited_root} is no absolute path")
        return self
