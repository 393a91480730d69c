"""Snapshots on their way: taken from the running state, streamed, staged, verified, swapped in.

Sending: the state is flushed in a thread, then a checkpoint (hard links) is taken between two turns of the loop, so
that its position is exact, and its files go out in chunks at the receiver's pace. Receiving: chunks are written to
a staging directory, verified and synced; only then is the core told, and only if the core wants it does the
snapshot replace the state. The core never hears of a snapshot that is not wholly on this node's disk (Raft §7).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from raftkv.errors import (
    InvariantViolation,
    NotLeader,
    PeerProtocolError,
    RaftkvError,
    ShuttingDown,
    StorageError,
    Unavailable,
)
from raftkv.kv import KeyValueMachine
from raftkv.raft import InstallSnapshot
from raftkv.runtime import wire
from raftkv.runtime.opening import check_staged, exchange_for_snapshot, wal_of
from raftkv.runtime.threads import run_in_thread, until_done
from raftkv.storage import LogFiles, SnapshotSink, SnapshotSource, remove_tree
from raftkv.types import HardState, MemberId, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.runtime.node import Node
    from raftkv.runtime.replica import Replica

_log = logging.getLogger("raftkv.snapshots")

NOTHING_NEEDED = 1 << 62


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """The first chunk of a stream: the sender's term, and what the snapshot stands for."""

    term: int
    snapshot: SnapshotMetadata


class _Offered(NamedTuple):
    """A snapshot that is wholly staged and was offered to the core."""

    snapshot: SnapshotMetadata
    sink: SnapshotSink
    installed: asyncio.Future[None]


class Snapshots:
    """The snapshot traffic of one node: at most one stream to each follower, and one coming in."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._needed_from: dict[MemberId, int] = {}
        """By follower: the first index that it will need once its snapshot is in place."""
        self._offered: _Offered | None = None
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
        except StorageError:
            raise  # of this node, since those of the other one do not travel: the node stops
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
                started_s = node.loop.time()
                index = await self._take(replica, directory)
                self.last_taken_s = node.loop.time() - started_s
            if not replica.raft.is_leader:
                # The term may be somebody else's by now, and whoever hears a snapshot in it takes the sender for its
                # leader; and a snapshot accepted here may have replaced the log that `index` stands in.
                raise NotLeader
            snapshot = replica.raft.describe_snapshot(index)
            self._needed_from[recipient] = index + 1
            _log.info("sending a snapshot", extra={"to": f"{recipient:x}", "last_index": index})
            yield wire.encode(SnapshotHeader(replica.raft.current_term, snapshot))
            source = await run_in_thread(lambda: SnapshotSource(directory, node.settings.snapshot_chunk_bytes))
            with contextlib.closing(source):
                while chunk := await run_in_thread(source.next_chunk):
                    yield chunk
        finally:
            await run_in_thread(lambda: remove_tree(directory))

    @staticmethod
    async def _take(replica: Replica, directory: Path) -> int:
        """Copy the state into `directory`; returns the index that it has applied.

        The checkpoint itself holds up the loop, and the longer the more there is to flush. So most is flushed before,
        in a thread, and the rest while applying is held.
        """
        machine = replica.machine
        await run_in_thread(machine.flush)
        replica.applying.hold()
        try:
            await run_in_thread(machine.flush)
            machine.snapshot(directory)
            return machine.last_applied
        finally:
            replica.resume_applying()

    # Receiving

    async def receive(self, sender: MemberId, chunks: AsyncIterator[bytes]) -> None:
        """Stage, verify, offer to the core, and return once it is in place. Raises `RaftkvError` to refuse."""
        node = self._node
        header = await self._header(chunks)
        if header.snapshot.last_index <= node.replica.machine.last_applied:
            return  # this node has all of it already; the sender goes on with entries
        directory = node.directory.staging("receiving")
        reserve_bytes = node.settings.disk_reserve_bytes
        sink = await run_in_thread(lambda: SnapshotSink(directory, reserve_bytes), SnapshotSink.discard)
        try:
            async for chunk in chunks:
                await run_in_thread(functools.partial(sink.write, chunk))
            await run_in_thread(sink.finish)
            await run_in_thread(lambda: check_staged(node.settings, directory, header.snapshot))
            await self._offer(sender, header, sink)
        finally:
            await run_in_thread(sink.discard)

    @staticmethod
    async def _header(chunks: AsyncIterator[bytes]) -> SnapshotHeader:
        async for chunk in chunks:
            return wire.decode(chunk, SnapshotHeader)
        raise PeerProtocolError("an empty snapshot stream")

    async def _offer(self, sender: MemberId, header: SnapshotHeader, sink: SnapshotSink) -> None:
        replica = self._node.replica
        raft, snapshot = replica.raft, header.snapshot
        offered = self._offered = _Offered(snapshot, sink, self._node.loop.create_future())
        applied_index = raft.last_applied
        replica.step(InstallSnapshot(header.term, sender, replica.own.member_id, snapshot))
        if replica.is_closed:
            raise ShuttingDown("the node is stopping")
        if applied_index < snapshot.last_index <= raft.last_applied:
            await self._until_installed(offered)
        elif raft.commit_index < snapshot.last_index:
            raise Unavailable("the snapshot is of an old term; it was not installed")

    @staticmethod
    async def _until_installed(offered: _Offered) -> None:
        """The core counts on the staged files from here on, so a newer stream or a stop must not remove them yet."""
        try:
            await asyncio.shield(offered.installed)
        except asyncio.CancelledError:
            await until_done(offered.installed)
            raise

    async def install(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        """The core has accepted the staged snapshot: exchange log and state for it. Errors stop the node."""
        offered = self._offered
        if offered is None or offered.snapshot != snapshot:
            raise InvariantViolation(f"the core accepted a snapshot up to {snapshot.last_index} that is not staged")
        try:
            async with self._node.maintenance.state_lock:
                await self._exchange(offered, hard_state)
        except BaseException:
            offered.installed.set_exception(Unavailable("the snapshot could not be installed"))
            raise
        offered.installed.set_result(None)
        self.installed_count += 1
        _log.info("snapshot installed", extra={"last_index": snapshot.last_index})

    async def _exchange(self, offered: _Offered, hard_state: HardState | None) -> None:
        node, replica = self._node, self._node.replica
        old_log, old_machine = replica.log.wal, replica.machine

        def exchange() -> tuple[LogFiles, KeyValueMachine]:
            old_machine.close()
            return exchange_for_snapshot(node, offered.snapshot, hard_state or old_log.hard_state, offered.sink.place)

        await old_log.aclose()  # every step of it has been reported on return, so none is taken for a new one's
        node.require_sound()  # the log may have failed at the last
        log_files, machine = await run_in_thread(exchange)
        replica.installed(wal_of(node, log_files), machine)

    def close(self) -> None:
        """The node has ended its tasks: what was accepted and not yet begun to be installed never will be."""
        offered = self._offered
        if offered is not None and not offered.installed.done():
            offered.installed.set_exception(ShuttingDown("the node stopped before the snapshot was installed"))
            offered.installed.exception()  # perhaps nobody waits for it
