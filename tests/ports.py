"""Ports for nodes that are stopped and started again, and must find their own port free each time.

They come from below the ephemeral range: the port of a node that is down must not be taken, as its own
end, by an outgoing connection of a neighbour that keeps dialling (on loopback even by a connection to itself).
And they are reserved until `release_ports`, against other runs of these tests on the same machine: this process holds
the UDP port of the same number, which no node uses.
"""

from __future__ import annotations

import contextlib
import random
import socket

_reserved = contextlib.ExitStack()


def free_port() -> int:
    """A TCP port that nobody listens on now, and that no other caller of this gets meanwhile."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
        else:
            _reserved.enter_context(reservation)
            return port


def release_ports() -> None:
    """End all reservations: descriptors are few on some machines."""
    _reserved.close()
