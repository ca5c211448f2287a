"""Undoes compression, within limits that hold before the memory is spent."""

from __future__ import annotations

import zlib

from loragate_server.intercept.refusals import unreadable

MAX_RATIO = 100
"""How many times its bytes a packed body may become. A prompt or a graph becomes ten to forty."""
FREE_BYTES = 1 << 20
"""So much may come out of any body, however small."""


def inflated(data: bytes, window_bits: int, max_bytes: int) -> bytes:
    """What a stream of deflate holds.

    Args:
        data: one stream, with the header and the trailer that `window_bits` says.
        window_bits: as zlib takes them.
        max_bytes: more than this is refused.

    Raises:
        RefusedRequestError: BODY_UNREADABLE where more would come out than is allowed.
        zlib.error: the data is of another kind.
        EOFError: the stream is cut off, or followed by more.
    """
    by_ratio = max(FREE_BYTES, len(data) * MAX_RATIO)
    limit = min(max_bytes, by_ratio)
    unpacker = zlib.decompressobj(wbits=window_bits)
    plain = unpacker.decompress(data, limit + 1)
    if len(plain) > limit:
        if limit < max_bytes:
            raise unreadable(
                f"The body is packed to less than one part in {MAX_RATIO}.", "Send it plain."
            )
        raise unreadable(
            f"The body has more than {max_bytes} bytes.",
            "Send a smaller one, or raise max_body_bytes.",
        )
    if not unpacker.eof or unpacker.unused_data:
        raise EOFError("not one whole stream")
    return plain
