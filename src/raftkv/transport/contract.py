"""What a transport promises and what it asks of the node. The TCP and the memory transport obey both.

Frames may be lost, delayed, and, across a reconnect, reordered or delivered after newer ones; a frame is
never altered, never delivered to another member than it was sent to, and never to a node of another cluster.
Raft needs no more (Raft §5.1). A call that was perhaps carried out says so (`OutcomeUnknown`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from raftkv.transport.stats import TransportStats
from raftkv.types import MemberId


@dataclasses.dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who a node is to others: the cluster (random 63 bits), the member, the name people give it, and where it listens.

    `raft_address` (`host:port`) lets a member answer a peer that its own configuration does not know yet.
    """

    cluster_id: int
    member_id: MemberId
    node_id: str
    raft_address: str = ""


class TransportHandler(Protocol):
    """The node's side. Everything is called on the loop's thread."""

    def on_frame(self, sender: MemberId, kind: int, payload: bytes) -> None:
        """Must be quick. `PeerProtocolError` ends the sender's connection; anything else is a bug of ours."""

    def on_unreachable(self, member_id: MemberId) -> None:
        """A connection to this peer was lost or a dial failed: what was sent lately is probably gone."""

    def accept_peer(self, peer: PeerIdentity) -> str:
        """Why not to take frames or snapshots of this member; "" to take them. The cluster id is ours already."""

    async def on_call(self, kind: int, payload: bytes) -> bytes:
        """Answer a call of anybody who can reach the port, member or not.

        A `Rejected` or `OutcomeUnknown` reaches the caller as the same class with the same text. The task goes
        on if the caller gives up, so that a half-done change is never left because someone else was impatient.
        """

    async def on_snapshot(self, sender: MemberId, chunks: AsyncIterator[bytes]) -> None:
        """Take a snapshot; returning says that it is verified and staged, raising `RaftkvError` refuses it.

        `chunks` raises `Unavailable` when the stream breaks before its end. One stream at a time: a newer one
        cancels this one and starts when it has ended, because only a stale sender loses by that.
        """


class PeerTransport(Protocol):
    """The transport's side. All methods are for the loop's thread."""

    @property
    def stats(self) -> TransportStats: ...

    @property
    def identity(self) -> PeerIdentity: ...

    async def start(self, host: str, port: int) -> int:
        """Listen; `port` 0 picks a free one. Returns the port. Peers set before are dialled from now on."""

    async def stop(self) -> None:
        """Flush for a moment, close everything, wait for every task. Nothing is called back afterwards."""

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        """The members to stay connected to, with their `host:port`; replaces the former set. Own id is skipped."""

    def set_identity(self, identity: PeerIdentity) -> None:
        """Become someone else (join absorbs a lone node): peer connections, both ways, end and shake hands anew.

        Calls that are being served or waited for go on.
        """

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool:
        """Queue one frame; never blocks. False: dropped (unknown, not connected, or its queue is full).

        It leaves at the next `flush`, or in the loop's next turn. True promises nothing. `kind` is 0 to 0xEF. Raises
        `TooLarge` above `max_frame_bytes`.
        """

    def flush(self) -> None:
        """Let what was sent in this turn of the loop leave now, before more work is done in it; never blocks."""

    async def call(self, address: str, kind: int, payload: bytes, timeout: float) -> bytes:
        """Ask the node at `host:port` once, over a connection of its own; `timeout` is in seconds.

        `Unavailable` when the request surely was not read (refused, no such host, handshake, not in time);
        `OutcomeUnknown` when it was sent and no answer came; otherwise what `on_call` there answered or raised.
        """

    async def send_snapshot(self, member_id: MemberId, chunks: AsyncIterator[bytes]) -> None:
        """Stream to a peer at the pace of its disk; returns when the peer has accepted the whole.

        Raises `Unavailable` (unknown peer, broken or stalled stream), what `on_snapshot` there raised, or
        what `chunks` raises. `chunks` is closed in every case; a cancellation ends the stream at both ends.
        """
