"""Addresses as people write them: `host:port`, and `[v6 host]:port`."""

from __future__ import annotations

import ipaddress
import re


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6 host]:port`, taken apart. Raises ValueError with a text for people."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in bare) != (bare is not host) or re.search(r"[\s/@=,]", bare):
        raise ValueError(f"{address!r} is not host:port (an IPv6 host stands in [brackets])")
    return bare, int(port)


def split_reachable_address(address: str) -> tuple[str, int]:
    """As `split_address`; raises ValueError, too, for what can be listened on and not connected to."""
    host, port = split_address(address)
    if is_wildcard(host) or port == 0:
        raise ValueError(f"{address!r} cannot be connected to; give the address that others reach")
    return host, port


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Whether the host means every address of the machine, which can be listened on and not connected to."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in {"", "*"}


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
