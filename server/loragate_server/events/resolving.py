"""`Resolver`: looks up names on threads that nobody waits for when the process ends."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Executor

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """As aiohttp's own, whose threads the interpreter would wait for at its end.

    A name server that is away may hold a thread for half a minute.
    """

    def __init__(self, pool: Executor) -> None:
        """Args: `pool` is not closed with the resolver."""
        self._pool = pool

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: it has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._pool,
            lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""
