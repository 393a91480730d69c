"""One member of one cluster: the core, its log, its state, and the queues of work around them.

A `Replica` lives as long as its node belongs to the same cluster; a node that is absorbed by another cluster
closes it and opens a new one on fresh directories. It has no sockets (the node hands it messages and takes
them) and no tasks: everything here runs in short turns on the event loop.

A turn (`_turn`) is where batches are made. Whatever happens in one pass of the loop, be it a
hundred HTTP requests or messages from peers, only marks the replica as woken; the turn then proposes all
waiting commands as one entry and carries out everything that the core has to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from raftkv.errors import (
    DiskFull,
    InvalidInput,
    MembershipRefused,
    NoLeader,
    NotLeader,
    NotReady,
    PeerProtocolError,
    RaftkvError,
)
from raftkv.kv import KeyValueMachine
from raftkv.raft import (
    AppendEntries,
    ConfirmedRead,
    Leadership,
    Message,
    RaftNode,
    RaftSettings,
    decode_message,
    encode_message,
)
from raftkv.runtime import wire
from raftkv.runtime.clock import TickClock
from raftkv.runtime.codec import COMMAND_OVERHEAD_BYTES, KeyValueCodec, command_bytes, takes_space
from raftkv.runtime.driver import Driver
from raftkv.runtime.forwarding import ForwardedWork, Forwarding
from raftkv.runtime.gate import GateState, ReadGate
from raftkv.runtime.histogram import Histogram
from raftkv.runtime.log_slot import LogSlot
from raftkv.runtime.proposals import Proposals
from raftkv.runtime.reads import ReadQueue
from raftkv.runtime.settings import Settings
from raftkv.storage import Wal, WalStep
from raftkv.types import (
    NOBODY,
    Configuration,
    Consistency,
    Entry,
    EntryKind,
    HardState,
    Member,
    MemberId,
    Role,
    SnapshotMetadata,
    WriteMode,
)

_log = logging.getLogger("raftkv.replica")

EMPTY_REVISION = 1
"""An empty store's revision, as etcd counts."""

Done = Callable[[Any], None]


class Position(NamedTuple):
    """Where a replica stands; the same object is handed out until a field changes."""

    revision: int
    applied_index: int
    current_term: int
    leader_node_id: str
    leader_http_address: str
    is_marked_stale: bool


class ReplicaHooks(Protocol):
    """What a replica needs of its node."""

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool: ...

    def configuration_in_force(self, configuration: Configuration) -> None:
        """Whom to keep connections to."""

    def leadership_known(self, leadership: Leadership) -> None: ...

    def stream_snapshot(self, recipient: MemberId) -> None: ...

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None: ...

    def failed(self, error: BaseException) -> None:
        """The replica cannot go on; the node must stop."""


class Replica:
    """See the module. `wal` and `machine` are open; `close_queues` ends all waiting work."""

    def __init__(
        self,
        settings: Settings,
        own: Member,
        cluster_id: int,
        wal: Wal,
        machine: KeyValueMachine,
        hooks: ReplicaHooks,
    ) -> None:
        self.settings = settings
        self.own = own
        self.cluster_id = cluster_id
        self.log = LogSlot(wal)
        self.machine = machine
        self.is_disk_full = False
        self.applied_bytes_count = 0
        self.dropped_frames_count = 0
        self.leader_changes_count = 0
        self.apply_histogram = Histogram()
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        self._is_closed = False
        self._position: Position | None = None
        self._configuration_events: list[asyncio.Future[None]] = []
        seed = random.SystemRandom().getrandbits(62)
        self.raft = RaftNode(
            raft_settings(settings, own.member_id), self.log, random.Random(seed), machine.last_applied
        )
        self.driver = Driver(self.raft, self)
        self.leader: MemberId = NOBODY
        self.heard_at_s = 0.0
        self.is_leader = False
        self.configuration = self.raft.status().configuration
        now = self._loop.time
        timeout_s = settings.request_timeout_ms / 1000
        codec = KeyValueCodec()
        self.proposals = Proposals(
            self.raft,
            codec.encode_batch,
            self.wake,
            now,
            timeout_s=timeout_s,
            pending_max_bytes=settings.max_pending_bytes,
        )
        self.forwarding = Forwarding(
            codec,
            lambda leader, frame: hooks.send(leader, wire.FrameKind.FORWARD, frame),
            self.wake,
            now,
            first_request_id=seed,
            timeout_s=timeout_s,
            pending_max_bytes=settings.max_pending_bytes,
        )
        self._forwarded = ForwardedWork(
            codec, lambda to, frame: hooks.send(to, wire.FrameKind.FORWARD_REPLY, frame), self._refusal_of
        )
        self.reads = ReadQueue(
            lambda request_id, is_lease: self.raft.request_read(request_id, lease=is_lease),
            self.wake,
            now,
            first_request_id=seed,
            timeout_s=timeout_s,
        )
        self.gate = ReadGate(self.reads.submit, now, settings.start_read_wait_ms / 1000)
        self.clock = TickClock(
            settings.tick_interval_ms / 1000, settings.election_timeout_ms / 1000, self._resumed_after_pause
        )

    # Work from clients

    def submit(self, command: Any, done: Done, mode: WriteMode) -> None:
        """`done` is told once: a result, a `Rejected`, or `OutcomeUnknown`."""
        if self.is_disk_full and takes_space(command):
            done(self._disk_full())
        elif self.is_leader:
            self.proposals.submit(command, command_bytes(command), done)
        elif self.leader == NOBODY:
            done(NoLeader("no leader is known; try again shortly"))
        elif mode is WriteMode.FORWARD:
            self.forwarding.submit(command, command_bytes(command), done)
        else:
            leader = self.leader_member()
            done(NotLeader(leader.node_id, leader.http_address) if leader else NotLeader())

    def local_value(self, key: bytes) -> bytes | None:
        """The applied value. Raises `NotReady` while what is applied may be older than what clients have seen."""
        if self.gate.state is GateState.CLOSED or self.clock.is_paused():
            raise NotReady("this node has not yet caught up with the leader; try again or ask another member")
        found = self.machine.value(key)
        return found[0] if found is not None else None

    def read(self, key: bytes, consistency: Consistency, done: Done) -> None:
        """`done` is told once: a `KeyValue`, None for no such key, or a `RaftkvError`."""
        if consistency is Consistency.LOCAL:
            if self.gate.state is GateState.CLOSED or self.clock.is_paused():
                done(NotReady("this node has not yet caught up with the leader; try again or ask another member"))
            else:
                done(self.machine.get(key))
            return
        is_lease = consistency is Consistency.LEASE
        if is_lease:
            if not self.settings.lease_reads:
                done(InvalidInput("lease reads are not enabled (setting lease_reads)"))
                return
            self._advance_clock()  # a lease must be judged by the time it is now, not by the last tick

        def answer(error: RaftkvError | None) -> None:
            done(self.machine.get(key) if error is None else error)

        self.reads.submit(answer, is_lease=is_lease)

    def position(self) -> Position:
        position = self._position
        if position is None:
            leader = self.leader_member()
            position = self._position = Position(
                self.machine.revision,
                self.machine.last_applied,
                self.raft.current_term,
                leader.node_id if leader else "",
                leader.http_address if leader else "",
                self.gate.state is GateState.MARKED,
            )
        return position

    def leader_member(self) -> Member | None:
        return self.configuration.members().get(self.leader)

    # Inputs from the node

    def handle_frame(self, sender: MemberId, kind: int, payload: bytes | memoryview) -> None:
        """A frame of a peer. Raises `PeerProtocolError` for bytes that no peer of ours would send."""
        if self._is_closed:
            return
        if kind == wire.FrameKind.RAFT:
            message = decode_message(payload)
            if message.sender != sender:
                raise PeerProtocolError(f"member {sender} sent a message in the name of {message.sender}")
            if type(message) is AppendEntries:
                self.heard_at_s = self._loop.time()
            self._guard(self.raft.step, message)
            self.wake()
        elif kind == wire.FrameKind.FORWARD:
            self._forwarded.handle(sender, wire.decode(payload, wire.Forward), self.proposals)
        elif kind == wire.FrameKind.FORWARD_REPLY:
            self.forwarding.handle_reply(wire.decode(payload, wire.ForwardReply), self.machine.last_applied)
        else:
            raise PeerProtocolError(f"unknown frame kind {kind}")

    def unreachable(self, member_id: MemberId) -> None:
        self._guard(self.raft.unreachable, member_id)
        self.forwarding.unreachable(member_id)
        self.wake()

    def durable(self, step_number: int) -> None:
        """The log has everything up to `step_number` on disk (called on the loop)."""
        if not self._is_closed:
            self._guard(self.driver.durable, step_number)

    def tick(self) -> None:
        if self._is_closed:
            return
        self._advance_clock()
        was_marked = self.gate.state is GateState.MARKED
        self.gate.tick()
        if was_marked is not (self.gate.state is GateState.MARKED):
            self._position = None
        self.proposals.expire()
        self.forwarding.expire()
        self.reads.retry()
        self.wake()

    def close_queues(self) -> None:
        """End all waiting work: nothing new is taken, unknown outcomes are told as such."""
        self._is_closed = True
        self.proposals.close()
        self.forwarding.close()
        self.reads.close()
        self._notify_configuration()

    # DriverPorts

    def wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._turn)

    def write_log(self, step: WalStep) -> int:
        return self.log.wal.write(step)

    def send(self, message: Message) -> None:
        if not self._hooks.send(message.recipient, wire.FrameKind.RAFT, encode_message(message)):
            self.dropped_frames_count += 1

    def apply(self, entries: list[Entry]) -> None:
        machine = self.machine
        proposals = self.proposals
        started_s = time.perf_counter()
        results = machine.apply(entries)
        self.apply_histogram.observe(time.perf_counter() - started_s)
        self._position = None
        for entry, entry_results in zip(entries, results, strict=True):
            self.applied_bytes_count += len(entry.data)
            proposals.applied(entry, entry_results)
            if entry.kind is EntryKind.CONFIGURATION:
                self._notify_configuration()
        index = entries[-1].index
        self.driver.applied(index)
        self.forwarding.applied(index)
        self.reads.applied(index)
        if proposals.has_waiting:
            self.wake()

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        self.gate.close()
        self._hooks.install_snapshot(snapshot, hard_state)

    def installed(self, wal: Wal, machine: KeyValueMachine) -> None:
        """Log and state of an installed snapshot take the place of the old ones."""
        self.log.wal = wal
        self.machine = machine
        self._position = None
        self._guard(self.driver.installed)

    def stream_snapshot(self, recipient: MemberId) -> None:
        self._hooks.stream_snapshot(recipient)

    def reads_confirmed(self, reads: list[ConfirmedRead]) -> None:
        self.reads.confirmed(reads, self.machine.last_applied)

    def reads_refused(self, request_ids: list[int]) -> None:
        self.reads.refused(request_ids)

    def leadership_changed(self, leadership: Leadership) -> None:
        was_leader = self.is_leader
        if leadership.leader not in (NOBODY, self.leader):
            self.leader_changes_count += 1
        self.is_leader = leadership.role is Role.LEADER
        self.leader = leadership.leader
        self._position = None
        if was_leader and not self.is_leader:
            self.proposals.leadership_lost()
        self._hooks.leadership_known(leadership)
        self._notify_configuration()

    def configuration_changed(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._position = None
        self._hooks.configuration_in_force(configuration)
        self._notify_configuration()

    # Membership and leadership

    def introduce(self) -> wire.ProbeReply:
        """Who this node is, for a leader that considers joining it."""
        own = self.own
        return wire.ProbeReply(
            own.node_id,
            own.member_id,
            self.cluster_id,
            len(self.configuration.members()),
            self.machine.revision > EMPTY_REVISION,
            own.raft_address,
            own.http_address,
        )

    def check_absorbable(self, request: wire.Absorb) -> None:
        """Raises `MembershipRefused` if anything could be lost by giving up this node's cluster."""
        if (self.cluster_id, self.own.member_id) != (request.expected_cluster_id, request.expected_member_id):
            raise MembershipRefused(f"{self.own.node_id} is not the node that was asked before; nothing was changed")
        others = [m.node_id for m in self.configuration.members().values() if m.member_id != self.own.member_id]
        if others:
            raise MembershipRefused(f"{self.own.node_id} has a cluster with {', '.join(others)}; nothing was changed")
        has_work = self.proposals.pending_count or self.machine.last_applied < self.log.last_index
        if has_work or self.machine.revision > EMPTY_REVISION:
            raise MembershipRefused(f"{self.own.node_id} holds data of its own; nothing was changed")

    def campaign_if_alone(self) -> None:
        """The only voter need not wait for a timeout."""
        voters = self.configuration.voters
        if len(voters) == 1 and voters[0].member_id == self.own.member_id and not self.configuration.is_joint:
            self._guard(self.raft.campaign)
            self.wake()

    async def hand_over(self, target: MemberId | None, timeout_s: float) -> bool:
        """Transfer leadership; true once this replica leads no more (Thesis §3.10).

        The core gives up on an heir that does not take over within an election timeout, for it may have just
        stopped too; without a `target` another one is then tried.
        """
        deadline_s = self._loop.time() + timeout_s
        retry_s = (self.settings.election_timeout_ms + 2 * self.settings.tick_interval_ms) / 1000
        while self.is_leader and self._loop.time() < deadline_s and not self._is_closed:
            if self.raft.status().transfer_target == NOBODY:
                self.raft.transfer_leadership(target)
                self.wake()
            with contextlib.suppress(TimeoutError):
                remaining_s = max(0.001, deadline_s - self._loop.time())
                await asyncio.wait_for(self.until_configuration_event(), min(retry_s, remaining_s))
        return not self.is_leader

    def last_contact(self) -> str:
        """How long ago the leader was heard, as the reference writes it."""
        if self.is_leader:
            return "0"
        if not self.heard_at_s:
            return "never"
        return f"{(self._loop.time() - self.heard_at_s) * 1000:.0f}ms"

    @property
    def is_configuration_committed(self) -> bool:
        status = self.raft.status()
        return not status.configuration.is_joint and status.configuration_index <= status.commit_index

    def propose_configuration(self, voters: Sequence[Member], learners: Sequence[Member]) -> None:
        self.raft.propose_configuration(voters, learners)
        self.wake()

    def catch_up_progress(self, member_id: MemberId) -> str:
        status = self.raft.status()
        progress = status.progress.get(member_id)
        if progress is None:
            return "not a member yet"
        return f"has {progress.match_index} of {status.last_index} log entries ({progress.state})"

    async def until_configuration_event(self) -> None:
        event: asyncio.Future[None] = self._loop.create_future()
        self._configuration_events.append(event)
        await event

    # Inside

    def _turn(self) -> None:
        self._is_woken = False
        if self._is_closed:
            return
        try:
            if self.is_leader:
                self.proposals.flush()
            else:
                self.forwarding.flush(self.leader)
            self.reads.flush()
            self.driver.process()
        except Exception as error:  # noqa: BLE001 - whatever it is, going on could break a promise: the node stops
            self._hooks.failed(error)

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except RaftkvError as error:
            self._hooks.failed(error)

    def _advance_clock(self) -> None:
        ticks = self.clock.advance()
        if ticks:
            self._guard(self.raft.tick, ticks)

    def _resumed_after_pause(self, elapsed_s: float) -> None:
        _log.warning("the process was paused or starved", extra={"seconds": round(elapsed_s, 3)})
        self.gate.close()

    def _refusal_of(self, commands: list[Any]) -> RaftkvError | None:
        """Why forwarded commands cannot be taken now; raises `PeerProtocolError` for what no peer would forward."""
        limit_bytes = self.settings.max_value_bytes + self.settings.max_key_bytes + COMMAND_OVERHEAD_BYTES
        if any(command_bytes(command) > limit_bytes for command in commands):
            raise PeerProtocolError("a forwarded command is larger than this node's limits allow")
        if not self.is_leader:
            return NotLeader()
        if self.is_disk_full and any(takes_space(command) for command in commands):
            return self._disk_full()
        return None

    def _disk_full(self) -> DiskFull:
        return DiskFull(
            f"less than disk_reserve_bytes ({self.settings.disk_reserve_bytes}) is free under "
            f"{self.settings.data_dir}: delete data or make room; reads go on"
        )

    def _notify_configuration(self) -> None:
        events, self._configuration_events = self._configuration_events, []
        for event in events:
            if not event.done():
                event.set_result(None)


def raft_settings(settings: Settings, member_id: MemberId) -> RaftSettings:
    """The core's knobs in ticks, from the node's in milliseconds."""
    tick_ms = settings.tick_interval_ms
    election_ticks = max(3, -(-settings.election_timeout_ms // tick_ms))
    return RaftSettings(
        member_id=member_id,
        election_timeout_ticks=election_ticks,
        heartbeat_ticks=max(1, min(election_ticks - 1, settings.heartbeat_interval_ms // tick_ms)),
        lease_reads=settings.lease_reads,
        lease_margin_ticks=max(2, election_ticks // 8),
        committed_max_bytes=256 * 1024,
    )
