"""How far the server reaches on a caller's word: to public addresses, and to what was allowed.

A caller names an address, and the server is inside a network that the caller is not. Names are
resolved once, and what is connected to is what they were resolved to; each redirection is checked
as the first address is, for the check is made where a socket is. So is the check that nothing is
asked in the clear where the operator has enabled https alone: a redirection may lead there.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network

_HIDING = ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96")
"""Addresses of IPv6 that hold one of IPv4, which a gateway would connect to."""

_INSIDE = ("fec0::/10", "5f00::/16", "3fff::/20", "100:0:0:1::/64", "192.88.99.0/24")
"""Networks of one site or of none, which `ipaddress` takes for public: some were so later."""

_REFUSED = tuple(map(ip_network, (*_HIDING, *_INSIDE)))


class AddressRefusedError(OSError):
    """The address is none that the server may connect to on a caller's word."""


class PlainHttpError(OSError):
    """The address is one of plain HTTP, which the operator has not enabled."""


def may_reach(address: str, allowed: tuple[Network, ...]) -> bool:
    """Whether an address is public, or in a network that the operator allows.

    Args:
        address: numeric; one of IPv6 may have a zone.
        allowed: further networks.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if any(found in network for network in allowed):
        return True
    if found.is_multicast or any(found in network for network in _REFUSED):
        return False
    return found.is_global


@lru_cache(maxsize=8)
def client_maker(allowed: tuple[Network, ...], *, plain: bool) -> Callable[..., Awaitable[Any]]:
    """What makes aiohttp's sessions for fsspec; the same one for the same arguments.

    Args:
        allowed: networks beside the public ones.
        plain: whether addresses of plain HTTP may be asked.
    """

    async def make(**settings: Any) -> Any:
        import aiohttp  # here, because most servers never open a URI

        class Connector(aiohttp.TCPConnector):
            """Looks at each address, however a request was led to it."""

            async def connect(self, req: Any, *others: Any, **named: Any) -> Any:
                if not plain and req.url.scheme != "https":
                    raise PlainHttpError("plain HTTP is not enabled")
                return await super().connect(req, *others, **named)

        def connect(info: Any) -> socket.socket:
            family, kind, protocol, _, place = info
            if not may_reach(str(place[0]), allowed):
                raise AddressRefusedError("no address that may be reached")
            return socket.socket(family, kind, protocol)

        settings.pop("loop", None)
        return aiohttp.ClientSession(
            connector=Connector(socket_factory=connect),
            # What one host sets must not be kept for all that are asked later.
            cookie_jar=aiohttp.DummyCookieJar(),
            **settings,
        )

    return make
