"""Counters for metrics and status: plain integers that only grow, written by the loop thread, read by anyone."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Traffic:
    """What one connection, or everything to and from one peer, has carried, headers included."""

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0


@dataclasses.dataclass(slots=True)
class PeerStats(Traffic):
    """One peer. `last_error` is empty while connected, else why not; it is stable over retries."""

    address: str = ""
    is_connected: bool = False
    last_error: str = ""
    frames_dropped: int = 0
    bytes_dropped: int = 0
    connect_count: int = 0
    dial_failure_count: int = 0
    lost_count: int = 0


@dataclasses.dataclass(slots=True)
class TransportStats:
    """The whole transport. `refused` counts ended and refused inbound connections by `RefusalReason`.

    `snapshots_unsent` and `snapshots_refused` count the streams, out and in, that ended in any other way than
    with an accepted snapshot.
    """

    peers: dict[int, PeerStats] = dataclasses.field(default_factory=dict)
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    inbound_accepted: int = 0
    inbound_open: int = 0
    handshakes_open: int = 0
    calls_served: int = 0
    calls_open: int = 0
    snapshots_sent: int = 0
    snapshots_unsent: int = 0
    snapshots_received: int = 0
    snapshots_refused: int = 0

    def count_refused(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
