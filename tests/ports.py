"""Ports for nodes that are stopped and started again.

They come from below the ephemeral range: the port of a node that is down must not be taken, as its own
end, by an outgoing connection of a neighbour that keeps dialling (on loopback even by a connection to itself).
"""

from __future__ import annotations

import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now and that was not given before."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
