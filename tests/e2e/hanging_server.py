"""`loragate-server` whose audit hangs for ever at an adapter with a certain strength.

No file is known that makes it hang; what a fault of a library or of a device would do is done here
in its place. At strength 0.123 reading hangs, at 0.321 the model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.uses import Member
from loragate_server.cli.command import main
from loragate_server.gate import measuring

READING, MODEL = 0.123, 0.321

_audit, _member_of = AuditEngine.audit, measuring.member_of


def _hang() -> None:
    threading.Event().wait()


def audit(self: AuditEngine, members: Sequence[Member], *arguments: Any, **options: Any) -> Any:
    """As the engine's, but for one strength."""
    if any(one.denoiser == MODEL for member in members for one in member.strengths):
        _hang()
    return _audit(self, members, *arguments, **options)


def member_of(read: Any, strengths: Sequence[Any], **options: Any) -> Member:
    """As the pipeline's, but for one strength."""
    if any(one.denoiser == READING for one in strengths):
        _hang()
    return _member_of(read, strengths, **options)


AuditEngine.audit = audit  # type: ignore[method-assign]
measuring.member_of = member_of

if __name__ == "__main__":
    main()
