"""Work beside the hot path: flush the state, cut the log behind it, forget old revisions, watch the disk.

The order is the rule: the log is cut only up to what a finished flush of the state covers (the state is
written without a log of its own, so until then Raft's log is the only copy), and never beyond the
snapshot that a follower is being sent, which will need the entries after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from raftkv.errors import RaftkvError
from raftkv.kv import Compact
from raftkv.runtime.clients.codec import command_bytes
from raftkv.runtime.replica import Replica
from raftkv.runtime.settings import Settings
from raftkv.storage import check_present, free_bytes

_log = logging.getLogger("raftkv.maintenance")

CHECK_INTERVAL_S = 0.1
DISK_CHECK_ROUNDS = 10
SWEEP_MAX_COUNT = 500


class Maintenance:
    """One background task a node. `state_lock` keeps flushes, snapshots and installs of one state apart."""

    def __init__(
        self,
        settings: Settings,
        replica: Callable[[], Replica],
        needed_from: Callable[[], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._needed_from = needed_from
        self._failed = failed
        self._flushed_bytes_count = 0
        self._flushed_of: Replica | None = None
        self._room_made_for: tuple[Replica | None, int] = None, 0
        self.state_lock = asyncio.Lock()
        self.flush_count = 0
        self.last_flush_s = 0.0
        self.free_bytes = 0

    async def run(self) -> None:
        """Runs until cancelled; an error stops the node."""
        try:
            self.check_disk()
            rounds = 0
            while True:
                await asyncio.sleep(CHECK_INTERVAL_S)
                rounds += 1
                if rounds % DISK_CHECK_ROUNDS == 0:
                    self.check_disk()
                    self.compact_if_due()
                await self._flush_if_due()
                await self._sweep()
                await self._make_room()
        except RaftkvError as error:
            self._failed(error)

    async def flush(self) -> None:
        """Make the applied state durable and cut the log behind it."""
        async with self.state_lock:
            replica = self._replica()
            machine = replica.machine
            index = machine.last_applied
            bytes_count = replica.applied_bytes_count
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            await asyncio.to_thread(machine.flush)
            self.last_flush_s = loop.time() - started_s
            self.flush_count += 1
            if self._replica() is replica and replica.machine is machine:
                self._flushed_of, self._flushed_bytes_count = replica, bytes_count
                self._cut_log(replica, index)

    def check_disk(self) -> None:
        """Raises DataDirectoryError when the data directory is gone."""
        replica = self._replica()
        check_present(self._settings.data_dir)
        free = self.free_bytes = free_bytes(self._settings.data_dir)
        is_full = free < self._settings.disk_reserve_bytes
        if is_full != replica.is_disk_full:
            replica.is_disk_full = is_full
            level = logging.ERROR if is_full else logging.INFO
            text = "disk nearly full: writes are refused until there is room" if is_full else "disk has room again"
            _log.log(level, text, extra={"free_bytes": free, "reserve_bytes": self._settings.disk_reserve_bytes})

    async def _flush_if_due(self) -> None:
        replica = self._replica()
        done = self._flushed_bytes_count if self._flushed_of is replica else 0
        if replica.applied_bytes_count - done >= self._settings.flush_interval_bytes:
            await self.flush()

    def compact_if_due(self) -> None:
        """The leader proposes a compaction, so that all members forget the same; a tenth late, to save work.

        On a full disk nothing old is kept: a delete keeps what it deletes for the history, so it would only take more.
        """
        replica = self._replica()
        kept = self._settings.history_retention_count
        if not kept:
            return
        if replica.is_disk_full:
            kept = 0
        machine = replica.machine
        oldest = max(machine.compact_revision, 1)
        if replica.is_leader and machine.revision - oldest > kept + kept // 10:
            command = Compact(machine.revision - kept)
            replica.proposals.submit(command, command_bytes(command), self._compacted)

    @staticmethod
    def _compacted(outcome: object) -> None:
        if isinstance(outcome, RaftkvError):
            _log.info("old revisions not compacted now: %s", outcome)

    async def _sweep(self) -> None:
        machine = self._replica().machine
        if self.state_lock.locked():
            return
        while machine.sweep(SWEEP_MAX_COUNT):
            await asyncio.sleep(0)  # requests have their turn between two parts
            if self.state_lock.locked() or self._replica().machine is not machine:
                return

    async def _make_room(self) -> None:
        """On a full disk, flush what was swept: only then does RocksDB remove the records from its files."""
        replica = self._replica()
        swept = replica.machine.compact_revision
        if not replica.is_disk_full or self._room_made_for == (replica, swept):
            return
        self._room_made_for = replica, swept
        await self.flush()

    def _cut_log(self, replica: Replica, flushed_index: int) -> None:
        wal = replica.log.wal
        keep_from = wal.index_retaining(self._settings.log_retention_bytes)
        cut = min(flushed_index, keep_from - 1, self._needed_from() - 1)
        # The core's base, which is ahead of the log's own from when a snapshot is accepted until it is in place: below
        # it the core no longer knows which configuration belongs to `cut`.
        if cut < replica.raft.status().first_index:
            return
        wal.compact(replica.raft.describe_snapshot(cut))
        replica.raft.compacted()
        replica.wake()
