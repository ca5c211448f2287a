"""What callers send beside their messages."""

from __future__ import annotations

import grpc


def metadata_values(context: grpc.aio.ServicerContext, key: str) -> list[str]:
    """All values of a metadata key that the caller sent, in their order."""
    return [
        value if isinstance(value, str) else value.decode("latin-1")
        for name, value in context.invocation_metadata() or ()
        if name == key
    ]


def metadata_value(context: grpc.aio.ServicerContext, key: str) -> str:
    """The last value of a metadata key that the caller sent; empty without one."""
    found = metadata_values(context, key)
    return found[-1] if found else ""
