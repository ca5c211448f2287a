"""The section `retention` of the configuration: what is kept for how long, and what goes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from loragate_server.config.section import Section

FOREVER = "forever"
_UNITS = {"d": "days", "h": "hours"}

_SPAN = re.compile(r"forever|[1-9][0-9]{0,5}[dh]")


def _span(value: object) -> object:
    if not isinstance(value, str) or not _SPAN.fullmatch(value):
        raise ValueError(f"{value!r} is no span; write days like 90d, hours like 36h, or forever")
    return value


Span = Annotated[str, BeforeValidator(_span)]
"""`90d`, `36h` or `forever`."""


def span_of(text: str) -> timedelta | None:
    """The length of a span; None for one without end."""
    if text == FOREVER:
        return None
    found = re.fullmatch(r"(\d+)([dh])", text)
    if found is None:
        raise ValueError(f"{text!r} is no span")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


class RetentionSection(Section):
    """What is kept for how long. As it ships, nothing ever goes.

    Attributes:
        decisions: recorded decisions, in the database and as whole files of the log. What a block
            rests on stays for good, and so does what a person still has to look at.
        evidence: the measured numbers of decisions in the database.
        uploads: adapter files in the store that nobody has asked about since.
        reviews: reviews that are settled no more: approvals that have lapsed, and reopened ones.
            Rejections stay for good.
        every_s: between two prunings by the server; 0 leaves them to the command.
        archive: where what is pruned from record and log is written before it goes, a folder or a
            URL of fsspec; nothing is written, and it is gone, where this is empty.
        log_file_bytes: size of a file of the decision log after which the server begins another;
            0 for one file without end.
        blocked_uploads: what becomes of stored files that are blocked: they stay as any other
            (`keep`), are deleted, or are moved into `quarantine` in the state directory, encrypted.
        quarantine_key_file: a file that holds the key for it: 32 random bytes in base64.
    """

    decisions: Span = FOREVER
    evidence: Span = FOREVER
    uploads: Span = FOREVER
    reviews: Span = FOREVER
    every_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    archive: str = ""
    log_file_bytes: Annotated[int, Field(ge=0)] = 0
    blocked_uploads: Literal["keep", "delete", "quarantine"] = "keep"
    quarantine_key_file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.blocked_uploads == "quarantine") != (self.quarantine_key_file is not None):
            raise ValueError(
                "blocked_uploads: quarantine and quarantine_key_file belong together; make a key "
                "with `openssl rand -base64 32`"
            )
        return self
