"""What only Python's collector of garbage finds, because it holds itself."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

OURS = ("loragate_server.", "loragate_kernels.", "loragate.", "google._upb", "torch")


async def left_by(ask: Callable[[], Awaitable[object]], times: int = 10) -> Counter[str]:
    """The kinds of objects of the server, and of tensors, of which each call leaves one or more.

    Args:
        ask: what is done, and answered.
        times: how often; what is made once only is not told.
    """
    logging.disable()  # those who keep what was logged keep errors, which keep frames
    await ask()  # what is made at the first call is no garbage of the others
    gc.collect()
    gc.freeze()  # so that the next collection looks at what is made from here on, and no more
    gc.disable()
    flags = gc.get_debug()
    try:
        for _ in range(times):
            await ask()
        await asyncio.sleep(0.1)  # an answer is there before its call has ended
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(map(_kind, gc.garbage))
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()
        logging.disable(logging.NOTSET)
    return Counter({kind: count for kind, count in found.items() if kind and count > times // 2})


def _kind(one: object) -> str:
    """The name of an object's type, or of the code that a frame runs; empty for those of others."""
    code = getattr(one, "f_code", None) or getattr(one, "__code__", None)
    if code is not None:
        file = str(getattr(code, "co_filename", ""))
        return str(code.co_qualname) if "loragate_server" in file else ""
    kind = type(one)
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__.startswith(OURS) else ""
