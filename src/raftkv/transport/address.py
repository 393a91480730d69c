"""`host:port` texts, and what to say when one cannot be reached."""

from __future__ import annotations

import os

from raftkv.errors import InvalidInput


def parse_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` with a port of 1 to 65535; raises `InvalidInput`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidInput(f"address {address!r}: write an IPv6 host in brackets, [host]:port")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        raise InvalidInput(f"address {address!r} is not host:port with a port of 1 to 65535")
    return host, int(port)


def describe_os_error(error: BaseException) -> str:
    """Without addresses and errno numbers, so that the text is the same at every retry."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
