"""The configuration beside the weights: its name, its limits, and how it is refused."""

from __future__ import annotations

from loragate_server.errors import ErrorReason, NoDecisionError

CONFIG_NAME = "adapter_config.json"


def decode_config(data: bytes, limit_bytes: int) -> str:
    """The text of a configuration.

    Args:
        data: its bytes, one more than the limit where it is larger.
        limit_bytes: the largest that is read.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID: too large, or not UTF-8.
    """
    if len(data) > limit_bytes:
        raise bad_config(f"is larger than {limit_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_config(f"is not UTF-8 at byte {error.start}") from error


def bad_config(fault: str) -> NoDecisionError:
    """ADAPTER_METADATA_INVALID: it is there, and what it says cannot be known."""
    return NoDecisionError(
        ErrorReason.ADAPTER_METADATA_INVALID,
        f"The {CONFIG_NAME} beside the weights {fault}.",
        remedy="Put an adapter's configuration there, as a plain file in UTF-8, or remove it.",
        metadata={"field": CONFIG_NAME},
    )
