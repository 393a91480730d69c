"""One simulated node: a data directory, and the processes that open it one after another.

What runs is the server's own code: `Replica` with its driver, queues and gates, the log with its records, segments and
recovery, the key-value machine behind its write buffer, `Maintenance` and `Membership`. What is simulated is what they
stand on: time, disk, network, and the moves of whole files (`moves`).

A process ends in one of three ways: `kill` (the page cache survives), `cut_power` (only what was synced does), or by
itself, when the node finds that it cannot go on.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raftkv.errors import CorruptData, PeerProtocolError, StorageError
from raftkv.kv import KeyValueMachine
from raftkv.raft import Leadership, Message
from raftkv.runtime import Maintenance, Membership, Replica, Settings
from raftkv.sim.disk import SimDisk
from raftkv.sim.loop import NodeLoop
from raftkv.sim.moves import Moves
from raftkv.sim.own import HostedMachine, OwnCodec
from raftkv.sim.store import SimStore
from raftkv.storage import (
    BurstCarrier,
    InlineExecutor,
    LogFiles,
    PowerCut,
    Wal,
    WalSettings,
    WalStep,
    WriteBehind,
    found_log,
    open_log,
)
from raftkv.types import Configuration, HardState, Member, MemberId, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.sim.cluster import Cluster

FORWARDED = "a client's work"
NOTICED_PAUSE_S = 1.3
"""An election timeout, by the slowest clock: what is shorter need not be noticed (`runtime.clock`)."""
_IDENTITY = Path("/identity")
_LOGGER = logging.getLogger("raftkv.sim")


class ObservedReplica(Replica):
    """The server's replica; what it writes and sends is shown to the checks first."""

    node: SimNode

    def write_log(self, step: WalStep) -> int:
        self.node.checks.written(self.node, step)
        return super().write_log(step)

    def send(self, message: Message) -> None:
        self.node.checks.sent(self.node, message)
        self.node.sending = type(message).__name__
        super().send(message)
        self.node.sending = FORWARDED


class SimNode:
    """See the module. `member` is its identity, which a wiped directory loses; `life` counts its processes."""

    def __init__(self, cluster: Cluster, node_id: str, member: Member, cluster_id: int, founded: Configuration) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.checks = cluster.checks
        self.node_id = node_id
        self.random = self.world.random(f"node/{node_id}")
        self.clock_rate = 1.0
        self.clock_offset_s = 0.0
        self.life = 0
        self.why_ended = "never started"
        self.is_exchanging = False
        self.sending = FORWARDED
        """The name of the message on its way out."""
        self.graveyard: list[object] = []
        """What dead processes held; let go only with the whole world, as a destructor may run code."""
        self.disk: SimDisk
        self._stores: dict[int, SimStore]
        self.loop: NodeLoop | None = None
        self.replica: ObservedReplica
        self.make_directory(member, cluster_id, founded)

    # The data directory

    def make_directory(self, member: Member, cluster_id: int, founded: Configuration) -> None:
        """A new directory of a new identity, with a log that begins in `founded`. The node must not run."""
        self.member, self.cluster_id = member, cluster_id
        self.disk = SimDisk(self.world, self.random)
        self._stores = {}
        self._make_generation(1, SnapshotMetadata(configuration=founded), None, {})
        self.switch(1, cluster_id)
        self.checks.new_identity(self)

    def _make_generation(
        self, number: int, base: SnapshotMetadata, hard_state: HardState | None, state: dict[bytes, bytes]
    ) -> None:
        step = WalStep(reset=base, hard_state=hard_state)
        found_log(self.log_directory(number), step, self._wal_settings, self.disk, InlineExecutor())
        self._stores[number] = SimStore(state)

    def exchange(
        self,
        base: SnapshotMetadata,
        hard_state: HardState | None,
        state: dict[bytes, bytes],
        cluster_id: int,
    ) -> tuple[LogFiles, KeyValueMachine]:
        """A whole new generation, named by one rename; the old files are closed. As `runtime.opening` does it."""
        self.checks.exchanging(self)
        self.is_exchanging = True
        number = self._generation() + 1
        self._remove_generation(number)
        self._make_generation(number, base, hard_state, state)
        self.switch(number, cluster_id)
        self._remove_generation(number - 1)
        files = self._open_files()
        self.is_exchanging = False
        return files

    def switch(self, number: int, cluster_id: int) -> None:
        disk, temporary = self.disk, _IDENTITY.with_suffix(".new")
        handle = disk.open(temporary, create=True)
        disk.write(handle, f"{number} {cluster_id}".encode(), 0)
        disk.sync(handle)
        disk.close(handle)
        disk.rename(temporary, _IDENTITY)
        disk.sync_directory(Path("/"))

    def _generation(self) -> int:
        handle = self.disk.open(_IDENTITY, read_only=True)
        number, cluster_id = self.disk.read(handle, 100, 0).split()
        self.disk.close(handle)
        self.cluster_id = int(cluster_id)
        return int(number)

    def _remove_generation(self, number: int) -> None:
        directory = self.log_directory(number)
        for name in self.disk.names(directory):
            self.disk.remove(directory / name)
        self.disk.sync_directory(directory)

    @staticmethod
    def log_directory(number: int) -> Path:
        return Path(f"/generation-{number}/wal")

    def _open_files(self) -> tuple[LogFiles, KeyValueMachine]:
        number = self._generation()
        log_files = open_log(self.log_directory(number), self._wal_settings, self.disk, InlineExecutor())
        self.store = self._stores[number]
        return log_files, self._machine_on(self.store)

    def _machine_on(self, store: SimStore) -> KeyValueMachine:
        if (own := self.cluster.own_machine) is not None:
            return cast("KeyValueMachine", HostedMachine(self, own(), store))
        return KeyValueMachine(WriteBehind(store))

    # Life

    @property
    def is_running(self) -> bool:
        return self.loop is not None

    @property
    def has_replica(self) -> bool:
        return "replica" in self.__dict__

    @property
    def is_awake(self) -> bool:
        """It runs, with a replica, and is not paused."""
        return self.loop is not None and not self.loop.is_paused and self.has_replica

    @property
    def is_listening(self) -> bool:
        """Paused processes still take bytes."""
        return self.loop is not None

    def start(self) -> None:
        """A new process opens the directory. Whether it came up shows in `is_running`."""
        if self.loop is not None:
            return
        self.life += 1
        self.is_exchanging = False
        self.loop = self.disk.loop = NodeLoop(self.world, self._failed, self._after)  # type: ignore[abstract]
        self.cluster.trace.event(self.node_id, "starts")
        self.loop.enter(self._open)

    def _open(self) -> None:
        log_files, machine = self._open_files()
        self.moves = Moves(self)
        self.maintenance = Maintenance(
            self.cluster.settings(self), lambda: self.replica, self.moves.needed_from, self._failed
        )
        self.membership = Membership(lambda: self.replica.standing, self.moves.call, join_timeout_s=8.0)
        self.replica = self.new_replica(log_files, machine)
        self.checks.opened(self)
        self.configuration_in_force(self.replica.configuration)
        self._tick_due_s = self.world.now_s
        self._tick()
        self._upkeep()
        self.replica.standing.campaign_if_alone()

    def new_replica(self, log_files: LogFiles, machine: KeyValueMachine) -> ObservedReplica:
        seed = self.random.getrandbits(60)
        replica = ObservedReplica(
            self.settings,
            self.member,
            self.cluster_id,
            self.wal_of(log_files),
            machine,
            self,
            clock=self.clock,
            seed=seed,
            codec=OwnCodec() if self.cluster.own_machine is not None else None,
        )
        replica.node = self
        self.cluster.tuning.apply(replica.raft._state)
        return replica

    @property
    def settings(self) -> Settings:
        return self.cluster.settings(self)

    @property
    def _wal_settings(self) -> WalSettings:
        return WalSettings(segment_size_bytes=self.cluster.tuning.segment_size_bytes)

    def wal_of(self, log_files: LogFiles) -> Wal:
        def notify(step_number: int) -> None:
            if wal is self.replica.log.wal:
                self.replica.durable(step_number)

        carrier = functools.partial(
            BurstCarrier, clock=self.world_time, sleep_count=lambda: 0, executor=InlineExecutor()
        )
        wal: Wal = Wal(log_files, notify=notify, on_failure=self._failed, carrier=carrier)
        return wal

    def world_time(self) -> float:
        return self.world.now_s

    def clock(self) -> float:
        """What this machine's clock shows: it drifts, and jumps."""
        return self.world.now_s * self.clock_rate + self.clock_offset_s

    def kill(self, why: str = "killed") -> None:
        """As SIGKILL: what was written is in the page cache still."""
        if self.loop is not None:
            self._end(why)
            self.disk.restart_process()

    def cut_power(self, why: str = "power cut") -> None:
        """Only what was synced survives, and of the rest what chance keeps."""
        if self.loop is not None:
            self._end(why)
        self.disk.power_on(self.random)

    def _end(self, why: str) -> None:
        loop, self.loop = self.loop, None
        if loop is None:
            return
        loop.die()
        self.why_ended = why
        self.graveyard.append((loop, self.__dict__.get("replica"), self.__dict__.get("moves")))
        self.cluster.trace.event(self.node_id, why)
        for number, store in self._stores.items():
            self._stores[number] = store.after_crash(self.random)
        self.checks.ended(self)
        self.cluster.process_ended(self)

    def pause(self) -> None:
        if self.loop is not None:
            self._paused_at_s = self.world.now_s
            self.loop.pause()

    def resume(self) -> None:
        if self.loop is not None:
            if self.loop.is_paused and self.world.now_s - self._paused_at_s > NOTICED_PAUSE_S:
                self.checks.answers.woke(self)
            self.loop.resume()

    def _failed(self, error: BaseException) -> None:
        """The process ends by itself. Only a disk is an excuse, and not for what it holds."""
        if self.loop is None:
            return
        causes = list(_causes(error))
        if any(isinstance(cause, PowerCut) for cause in causes):
            self.cut_power("power cut in the middle of a write")
        elif self.cluster.excuses(self) and any(
            isinstance(cause, OSError | StorageError) and not isinstance(cause, CorruptData) for cause in causes
        ):
            self.kill(f"stopped: {error}")
        else:
            self.checks.violation(f"{self.node_id} failed: {error!r}", error)
            self.kill(f"failed: {error!r}")

    def _after(self) -> None:
        if self.loop is not None and self.has_replica:
            self.checks.after_step(self)

    # Time

    def _tick(self) -> None:
        interval_s = self.settings.tick_interval_ms / 1000
        self.replica.tick()
        self._tick_due_s = max(self._tick_due_s + interval_s, self.world.now_s)
        if self.loop is not None:
            self.loop.call_at(self._tick_due_s, self._tick)

    def _upkeep(self) -> None:
        """What `Maintenance.run` does from time to time, at this node's own times."""
        if self.loop is None:
            return
        if self.replica.machine.last_applied and not self.maintenance.state_lock.locked():
            self.spawn(self.maintenance.flush())
            self.maintenance.compact_if_due()
            self.replica.machine.sweep(200)
        self.loop.call_later(self.random.uniform(1.0, 8.0), self._upkeep)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self.loop is None:
            work.close()
            return
        task = self.loop.create_task(work)
        self.graveyard.append(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.add_done_callback(lambda done: None if done.exception() is None else self._failed(done.exception()))  # type: ignore[arg-type]

    # From the network

    def receive_frame(self, sender: MemberId, kind: int, payload: bytes) -> None:
        if self.loop is not None:
            self.loop.call_soon(self._take_frame, sender, kind, payload)

    def _take_frame(self, sender: MemberId, kind: int, payload: bytes) -> None:
        self.checks.leaderships.heard(self, sender)
        try:
            self.replica.handle_frame(sender, kind, payload)
        except PeerProtocolError as error:
            self.checks.violation(f"{self.node_id} did not understand a peer: {error}", error)

    def told_unreachable(self, life: int, member_id: MemberId) -> None:
        if self.loop is not None and self.life == life:
            self.loop.call_soon(lambda: self.replica.unreachable(member_id))

    def run_soon(self, work: Callable[[], None]) -> None:
        if self.loop is not None:
            self.loop.call_soon(work)

    # ReplicaHooks

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool:
        if self.loop is not None:
            self.cluster.network.send(self, member_id, kind, payload)
        return True

    def flush_sent(self) -> None:
        """Frames leave at once."""

    def configuration_in_force(self, configuration: Configuration) -> None:
        self.checks.configuration(self, configuration)

    def leadership_known(self, leadership: Leadership) -> None:
        self.cluster.trace.event(self.node_id, f"{leadership.role.value} of term {self.replica.raft.current_term}")

    def stream_snapshot(self, recipient: MemberId) -> None:
        self.moves.send_snapshot(recipient)

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        self.spawn(self.moves.install(snapshot, hard_state))

    def failed(self, error: BaseException) -> None:
        self._failed(error)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
