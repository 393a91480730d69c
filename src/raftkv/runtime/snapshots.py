"""Snapshots on their way: taken from the running state, streamed, staged, verified, swapped in.

Sending: the state is flushed in a thread, then a checkpoint (hard links) is taken between two turns of the loop, so
that its position is exact, and its files go out in chunks at the receiver's pace. Receiving: chunks are written to
a staging directory, verified and synced; only then is the core told, and only if the core wants it does the
snapshot replace the state. The core never hears of a snapshot that is not wholly on this node's disk (Raft §7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from raftkv.errors import InvariantViolation, PeerProtocolError, RaftkvError, Unavailable
from raftkv.kv import KeyValueMachine
from raftkv.raft import InstallSnapshot
from raftkv.runtime import wire
from raftkv.runtime.opening import exchange_for_snapshot
from raftkv.storage import SnapshotSink, SnapshotSource, Wal, remove_tree
from raftkv.types import HardState, MemberId, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.runtime.node import Node

_log = logging.getLogger("raftkv.snapshots")

NOTHING_NEEDED = 1 << 62


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """The first chunk of a stream: the sender's term, and what the snapshot stands for."""

    term: int
    snapshot: SnapshotMetadata


class Snapshots:
    """The snapshot traffic of one node: at most one stream to each follower, and one coming in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._needed_from: dict[MemberId, int] = {}
        """By follower: the first index that it will need once its snapshot is in place."""
        self._staged: tuple[SnapshotMetadata, SnapshotSink] | None = None
        self._installed = asyncio.Event()
        self.sent_count = 0
        self.installed_count = 0
        self.last_taken_s = 0.0

    def needed_from(self) -> int:
        """The log must keep this index and what follows, for followers that are being sent a snapshot."""
        return min(self._needed_from.values(), default=NOTHING_NEEDED)

    # Sending

    def send(self, recipient: MemberId) -> None:
        """Start a stream to `recipient` unless one is under way."""
        if recipient not in self._needed_from:
            self._needed_from[recipient] = self._node.replica.machine.last_applied + 1
            self._node.spawn(self._send(recipient))

    async def _send(self, recipient: MemberId) -> None:
        replica = self._node.replica
        is_sent = False
        try:
            await self._node.transport.send_snapshot(recipient, self._chunks(recipient))
            is_sent = True
            self.sent_count += 1
        except RaftkvError as error:
            _log.warning("snapshot not sent: %s", error, extra={"to": f"{recipient:x}"})
        finally:
            self._needed_from.pop(recipient, None)
        if self._node.replica is replica:
            replica.raft.snapshot_sent(recipient, is_sent)
            replica.wake()

    async def _chunks(self, recipient: MemberId) -> AsyncIterator[bytes]:
        node = self._node
        directory = node.directory.staging(f"sending-{recipient:x}")
        try:
            async with node.maintenance.state_lock:
                replica = node.replica
                machine = replica.machine
                started_s = node.loop.time()
                await asyncio.to_thread(machine.flush)
                index = machine.last_applied
                machine.snapshot(directory)
                self.last_taken_s = node.loop.time() - started_s
            snapshot = replica.raft.describe_snapshot(index)
            self._needed_from[recipient] = index + 1
            _log.info("sending a snapshot", extra={"to": f"{recipient:x}", "last_index": index})
            yield wire.encode(SnapshotHeader(replica.raft.current_term, snapshot))
            source = await asyncio.to_thread(SnapshotSource, directory, node.settings.snapshot_chunk_bytes)
            with contextlib.closing(source):
                while chunk := await asyncio.to_thread(source.next_chunk):
                    yield chunk
        finally:
            await asyncio.to_thread(remove_tree, directory)

    # Receiving

    async def receive(self, sender: MemberId, chunks: AsyncIterator[bytes]) -> None:
        """Stage, verify, offer to the core, and return once it is in place. Raises `RaftkvError` to refuse."""
        node = self._node
        header = await self._header(chunks)
        if header.snapshot.last_index <= node.replica.machine.last_applied:
            return  # this node has all of it already; the sender goes on with entries
        sink = await asyncio.to_thread(
            SnapshotSink, node.directory.staging("receiving"), node.settings.disk_reserve_bytes
        )
        try:
            async for chunk in chunks:
                await asyncio.to_thread(sink.write, chunk)
            await asyncio.to_thread(sink.finish)
            await self._offer(sender, header, sink)
        finally:
            self._staged = None
            await asyncio.to_thread(sink.discard)

    @staticmethod
    async def _header(chunks: AsyncIterator[bytes]) -> SnapshotHeader:
        async for chunk in chunks:
            return wire.decode(chunk, SnapshotHeader)
        raise PeerProtocolError("an empty snapshot stream")

    async def _offer(self, sender: MemberId, header: SnapshotHeader, sink: SnapshotSink) -> None:
        replica = self._node.replica
        raft = replica.raft
        self._staged = (header.snapshot, sink)
        self._installed.clear()
        raft.step(InstallSnapshot(header.term, sender, replica.own.member_id, header.snapshot))
        replica.wake()
        if raft.last_applied >= header.snapshot.last_index:
            await self._installed.wait()
        elif raft.commit_index < header.snapshot.last_index:
            raise Unavailable("the snapshot is of an old term; it was not installed")

    async def install(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        """The core has accepted the staged snapshot: exchange log and state for it. Errors stop the node."""
        node = self._node
        async with node.maintenance.state_lock:
            replica = node.replica
            staged = self._staged
            if staged is None or staged[0] != snapshot:
                raise InvariantViolation(f"the core accepted a snapshot up to {snapshot.last_index} that is not staged")
            sink = staged[1]
            old_log, old_machine = replica.log.wal, replica.machine

            def exchange() -> tuple[Wal, KeyValueMachine]:
                old_log.close()
                old_machine.close()
                return exchange_for_snapshot(node, snapshot, hard_state or old_log.hard_state, sink.place)

            wal, machine = await asyncio.to_thread(exchange)
            replica.installed(wal, machine)
            self.installed_count += 1
            _log.info("snapshot installed", extra={"last_index": snapshot.last_index})
        self._installed.set()
