"""The error of everything that keeps a signed verdict from being believed."""

from __future__ import annotations


class SignatureRefused(ValueError):  # noqa: N818 - its name says what happened
    """A signed verdict is not believed.

    Attributes:
        cause: what is wrong, in one sentence or several.
        remedy: what to do about it, in one sentence.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy


class NotUnderstood(SignatureRefused):
    """A trusted key has signed something that this client cannot read: it may speak against."""
