"""`/witness/add-checkpoint` on the HTTP port: other servers have their checkpoints signed here.

Nobody has to show a token: a question has the signature of a log that the witness knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from loragate_server.threads import DaemonPool

PATH = "/witness/add-checkpoint"
MAX_QUESTION_BYTES = 64 * 1024

Add = Callable[[bytes], tuple[int, str, str]]
"""Answers a question with status, type and text; may block, must not raise."""


class WitnessDoor:
    """Hands questions to a witness, one after the other."""

    def __init__(self, add: Add) -> None:
        self._add = add
        # Not the loop's own threads: a disk that hangs must not take them away.
        self._pool = DaemonPool(1, "witness")

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds the route."""
        router.add_post(PATH, self.answer)

    async def answer(self, asked: web.Request) -> web.Response:
        """What the witness says."""
        body = await asked.read()
        status, kind, text = await asyncio.wrap_future(self._pool.submit(self._add, body))
        return web.Response(status=status, text=text, content_type=kind)
