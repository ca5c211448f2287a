"""People whom a reverse proxy has signed in, by the headers that it sends."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

from aiohttp import web

from loragate_server.access.claims import checked_name
from loragate_server.access.paths import HOME, LOGIN, below_prefix
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import read_secret
from loragate_server.access.sessions import Person
from loragate_server.config.console import ProxySection

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HEADER_CHARS: Final = 8000


class ProxyDoor:
    """Believes the headers of peers in the trusted networks, and of nobody else.

    Who the peer is says the socket; headers such as X-Forwarded-For are anybody's to write.
    """

    signs_out = False  # the proxy signed them in, so only the proxy can sign them out

    def __init__(self, section: ProxySection) -> None:
        self._section = section
        self._networks = [ipaddress.ip_network(one) for one in section.trusted_networks]
        file = section.secret_file
        self._secret = None if file is None else read_secret(file, "console.proxy.secret_file")

    async def start(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    def routes(self) -> list[web.RouteDef]:
        """The address that sign-in links lead to."""
        return [web.get(below_prefix(LOGIN), self._login)]

    def identify(self, request: web.Request) -> Person | None:
        """The person of the headers; None if the proxy sent no name.

        Raises:
            AccessRefused: the peer is not the proxy, or its headers are not usable.
        """
        self._check_peer(request)
        self._check_secret(request)
        name = _header(request, self._section.user_header)
        if not name:
            return None
        name = checked_name(name, self._section.user_header)
        listed = _header(request, self._section.groups_header).split(",")
        groups = frozenset(group.strip() for group in listed)
        return Person(name, groups, f"user {name}")

    def challenge(self, request: web.Request) -> web.StreamResponse:
        """Nobody can sign in here."""
        raise AccessRefused(Refusal.SIGN_IN, f"no header {self._section.user_header}")

    def forget(self, request: web.Request, response: web.StreamResponse) -> None:
        """There is nothing to forget."""

    def _check_peer(self, request: web.Request) -> None:
        peer = peer_address(request)
        trusted = peer is not None and any(peer in network for network in self._networks)
        if not trusted:
            detail = f"from {peer or 'a socket without address'}"
            raise AccessRefused(Refusal.PROXY_UNTRUSTED, detail)

    def _check_secret(self, request: web.Request) -> None:
        if self._secret is None:
            return
        given = _header(request, self._section.secret_header)
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._secret):
            raise AccessRefused(
                Refusal.PROXY_UNTRUSTED, f"wrong header {self._section.secret_header}"
            )

    async def _login(self, _: web.Request) -> web.Response:
        raise web.HTTPSeeOther(HOME)


def peer_address(request: web.Request) -> Address | None:
    """Where the connection comes from; None for Unix sockets."""
    peer = request.transport and request.transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return None
    address = ipaddress.ip_address(peer[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _header(request: web.Request, name: str) -> str:
    """The header's value; empty if it is missing."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise AccessRefused(Refusal.PROXY_HEADERS, f"{name} was sent {len(values)} times")
    value = values[0].strip() if values else ""
    if len(value) > _MAX_HEADER_CHARS:
        raise AccessRefused(Refusal.PROXY_HEADERS, f"{name} has {len(value)} characters")
    return value
