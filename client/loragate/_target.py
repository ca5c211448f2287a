"""Refuses addresses that gRPC would take for others, or fail at with words of its own."""

from __future__ import annotations

import ipaddress
import re

DEFAULT_TARGET = "127.0.0.1:50051"

_SCHEME = re.compile("(?i)[a-z][a-z0-9+.-]*://")
_UNIX = ("unix:", "unix-abstract:", "vsock:")
_UNREAD = ("xds:", "google-c2p:")
"""Schemes of gRPC whose names have no port, and are found by a control plane."""
_ADDRESSES = ("ipv4:", "ipv6:")
_HIGHEST_PORT = 65535


def check_target(target: str, name: str) -> None:
    """Refuses what is no address of a service.

    Args:
        target: as gRPC takes it: "host:port", "dns:///host:port", "unix:/run/loragate.sock".
        name: of the setting that it comes from.

    Raises:
        ValueError: it is none; the message names the setting, the cause and what to write.
    """
    wrong = _wrong(target)
    if wrong:
        raise ValueError(f"{name}: {target!r} is no address of a service: {wrong}")


def _wrong(target: str) -> str:
    """What is wrong with a target, and the remedy; empty where nothing is."""
    if not target.strip():
        return f"it is empty. Write HOST:PORT, such as {DEFAULT_TARGET}."
    if any(character.isspace() or not character.isprintable() for character in target):
        return "it has a space or a control character in it. Write HOST:PORT."
    if target.startswith(_UNIX):
        return "" if target.partition(":")[2].strip("/") else "the socket has no path."
    if target.startswith(_UNREAD):
        return ""
    if target.startswith(_ADDRESSES):
        lists = target.partition(":")[2].lstrip("/").split(",")
        return next(filter(None, map(_wrong_address, lists)), "")
    if target.startswith("dns:"):
        # dns://AUTHORITY/HOST:PORT, where the authority is the name server to ask.
        rest = target.removeprefix("dns:")
        return _wrong_address(rest[2:].partition("/")[2] if rest.startswith("//") else rest)
    scheme = _SCHEME.match(target)
    if scheme:
        bare = target[scheme.end() :].rstrip("/")
        return f"gRPC addresses have no {scheme[0]} before them. Write {bare or DEFAULT_TARGET}."
    return _wrong_address(target)


def _wrong_address(address: str) -> str:
    odd = next((one for one in "/?#@" if one in address), "")
    if odd:
        return f"HOST:PORT has no {odd!r}. Write the host and the port alone."
    host, colon, port = address.rpartition(":")
    if _is_ipv6(address) or _is_ipv6(host):
        return "an IPv6 address stands in brackets. Write [ADDRESS]:PORT, such as [::1]:50051."
    if not colon or address.endswith("]"):
        example = DEFAULT_TARGET.rpartition(":")[2]
        return f"the port is missing. Write HOST:PORT; the server's default is {example}."
    if not host:
        return f"the host is missing. Write HOST:PORT, such as {DEFAULT_TARGET}."
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _HIGHEST_PORT):
        return f"{port!r} is no port. A port is a number from 1 to {_HIGHEST_PORT}."
    if ":" in host and not (host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1])):
        return "it has a colon too many. Write HOST:PORT, and an IPv6 address in brackets."
    return ""


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
