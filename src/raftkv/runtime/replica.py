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
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from raftkv.errors import (
    NotLeader,
    PeerProtocolError,
    RaftkvError,
    Rejected,
    Unavailable,
)
from raftkv.kv import Command, KeyValueMachine
from raftkv.raft import (
    AppendEntries,
    ConfirmedRead,
    Leadership,
    Message,
    RaftNode,
    decode_message,
    encode_message,
)
from raftkv.runtime import wire
from raftkv.runtime.applying import Applying
from raftkv.runtime.clients.codec import CommandCodec, KeyValueCodec, command_bytes, takes_space
from raftkv.runtime.clients.forwarded import ForwardedWork
from raftkv.runtime.clients.forwarding import Forwarding
from raftkv.runtime.clients.gate import ReadGate
from raftkv.runtime.clients.proposals import Proposals
from raftkv.runtime.clients.reads import ReadQueue
from raftkv.runtime.clients.rules import ClientRules
from raftkv.runtime.clients.work import ClientWork
from raftkv.runtime.clock import TickClock, elapsed_seconds
from raftkv.runtime.driver import Driver
from raftkv.runtime.limits import largest_forward_bytes, raft_settings
from raftkv.runtime.log_slot import LogSlot
from raftkv.runtime.membership.standing import Standing
from raftkv.runtime.settings import Settings
from raftkv.runtime.watching.histogram import Histogram
from raftkv.storage import Wal, WalStep
from raftkv.types import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Member,
    MemberId,
    Role,
    SnapshotMetadata,
)

_log = logging.getLogger("raftkv.replica")

T = TypeVar("T")

COMMIT_NOTICE_S = 0.002
"""How long a commit may wait for new entries to carry its index to the followers (docs/design/performance.md)."""


class ReplicaHooks(Protocol):
    """What a replica needs of its node."""

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool: ...

    def flush_sent(self) -> None:
        """Let what was sent leave now, before more work is done in this turn."""

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
        *,
        clock: Callable[[], float] = elapsed_seconds,
        seed: int | None = None,
        codec: CommandCodec | None = None,
    ) -> None:
        """`clock` is what ticks are counted from; `seed`, new by default, is of the core and of request ids."""
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
        self._commit_notice: asyncio.TimerHandle | None = None
        self.is_closed = False
        if seed is None:
            seed = random.SystemRandom().getrandbits(62)
        self.raft = RaftNode(
            raft_settings(settings, own.member_id), self.log, random.Random(seed), machine.last_applied
        )
        self.driver = Driver(self.raft, self)
        self.applying = Applying(self._apply, self._is_applying_awaited, self._deferral_is_over, self._loop.call_later)
        self.leader: MemberId = NOBODY
        self.heard_at_s = 0.0
        self.is_leader = False
        self.configuration = self.raft.status().configuration
        now = self._loop.time
        timeout_s = settings.request_timeout_ms / 1000
        codec = codec or KeyValueCodec()
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
        self._client_rules = ClientRules(settings.max_key_bytes, settings.max_value_bytes)
        self._forwarded = ForwardedWork(
            codec,
            self._send_forward_reply,
            self._refusal_of_sender,
            self._refusal_of_command,
            command_bytes,
            batch_max_bytes=largest_forward_bytes(settings),
        )
        self.reads = ReadQueue(
            lambda request_id, is_lease: self.raft.request_read(request_id, lease=is_lease),
            self.wake,
            now,
            first_request_id=seed,
            timeout_s=timeout_s,
        )
        self.gate = ReadGate(self.reads.submit, now, settings.start_read_wait_ms / 1000, self._gate_changed)
        self.clock = TickClock(
            settings.tick_interval_ms / 1000, settings.election_timeout_ms / 1000, self._resumed_after_pause, clock
        )
        self.clients = ClientWork(self, self.gate, self.clock)
        self.standing = Standing(self, now)

    def leader_member(self) -> Member | None:
        return self.configuration.members().get(self.leader)

    def campaign(self) -> None:
        self._guard(self.raft.campaign)
        self.wake()

    # Inputs from the node

    def handle_frame(self, sender: MemberId, kind: int, payload: bytes | memoryview) -> None:
        """A frame of a peer. Raises `PeerProtocolError` for bytes that no peer of ours would send."""
        if self.is_closed:
            return
        try:
            self._take_frame(sender, kind, payload)
        except PeerProtocolError:
            raise
        except Exception as error:  # noqa: BLE001 - see _guard; the transport would only end the connection
            self._hooks.failed(error)

    def _take_frame(self, sender: MemberId, kind: int, payload: bytes | memoryview) -> None:
        if kind == wire.FrameKind.RAFT:
            message = decode_message(payload)
            if message.sender != sender:
                raise PeerProtocolError(f"member {sender} sent a message in the name of {message.sender}")
            if type(message) is AppendEntries:
                self.heard_at_s = self._loop.time()
                # What it promises its leader is counted from now, not from before a pause that it has not seen yet.
                self.advance_clock()
            self.raft.step(message)
            if self.raft.has_ready():
                self.wake()
        elif kind == wire.FrameKind.FORWARD:
            self._forwarded.handle(sender, wire.decode(payload, wire.Forward), self.proposals)
        elif kind == wire.FrameKind.FORWARD_REPLY:
            reply = wire.decode(payload, wire.ForwardReply)
            self.applying.apply_now()
            self.forwarding.handle_reply(sender, reply, self.machine.last_applied)
        else:
            raise PeerProtocolError(f"unknown frame kind {kind}")

    def step(self, message: Message) -> None:
        """A message that did not come as a frame."""
        if not self.is_closed:
            self._guard(self.raft.step, message)
            self.wake()

    def unreachable(self, member_id: MemberId) -> None:
        self._guard(self.raft.unreachable, member_id)
        self.forwarding.unreachable(member_id)
        self.wake()

    def durable(self, step_number: int) -> None:
        """The log has everything up to `step_number` on disk (called on the loop)."""
        if not self.is_closed:
            self._guard(self.driver.durable, step_number)

    def tick(self) -> None:
        if not self.is_closed:
            self._guard(self._tick)

    def _tick(self) -> None:
        self.advance_clock()
        if not self.driver.is_installing:  # the state's files are being exchanged: nothing may be read, marked or not
            self.gate.tick(can_be_confirmed=not self.standing.is_removed)
        self.proposals.expire()
        self.forwarding.expire()
        if self.standing.is_removed:
            self.reads.refuse_all(self.standing.removed())
        self.reads.retry()
        self.wake()

    def failed(self, error: BaseException) -> None:
        """What this replica holds cannot be trusted any more: the node stops."""
        self._hooks.failed(error)

    def close_queues(self) -> None:
        """End all waiting work: nothing new is taken, unknown outcomes are told as such."""
        self.is_closed = True
        self.applying.close()
        self.gate.close()  # the files may be closed any moment
        self.proposals.close()
        self.forwarding.close()
        self.reads.close()
        self.standing.notify()

    # DriverPorts

    def wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._turn)

    def write_log(self, step: WalStep) -> int:
        return self.log.wal.write(step)

    def flush(self) -> None:
        self._hooks.flush_sent()
        self.log.wal.start()

    def send(self, message: Message) -> None:
        if not self._hooks.send(message.recipient, wire.FrameKind.RAFT, encode_message(message)):
            self.dropped_frames_count += 1

    def apply(self, entries: list[Entry]) -> None:
        self.applying.take(entries)

    def _apply(self, entries: list[Entry]) -> None:
        machine = self.machine
        proposals = self.proposals
        started_s = time.perf_counter()
        results = machine.apply(entries, wants_results=proposals.has_inflight)
        self.apply_histogram.observe(time.perf_counter() - started_s)
        self.clients.moved()
        for entry, entry_results in zip(entries, results, strict=True):
            self.applied_bytes_count += len(entry.data)
            proposals.applied(entry, entry_results)
            if entry.kind is EntryKind.CONFIGURATION:
                self.standing.notify()
        index = entries[-1].index
        self.driver.applied(index)
        self.forwarding.applied(index)
        self.reads.applied(index)
        if proposals.has_waiting:
            self.wake()
        if self.is_leader and self._commit_notice is None:
            self._commit_notice = self._loop.call_later(COMMIT_NOTICE_S, self.announce_commit)

    def _is_applying_awaited(self) -> bool:
        return (
            self.is_leader
            or self.reads.pending_count > 0
            or self.forwarding.has_pending
            or self.proposals.has_inflight
            or not self.gate.is_confirmed
        )

    def _deferral_is_over(self) -> None:
        self._guard(self.applying.apply_now)

    def resume_applying(self) -> None:
        """After `applying.hold`, from outside a turn."""
        self._guard(self.applying.resume)

    def announce_commit(self) -> None:
        """Let followers know of the commit index, unless new entries tell them."""
        if self._commit_notice is not None:
            self._commit_notice.cancel()
            self._commit_notice = None
        if not self.is_closed:
            self._guard(self.raft.announce_commit)
            self.wake()

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        self.applying.apply_now()  # to the state that it is for
        self.gate.close()
        self._hooks.install_snapshot(snapshot, hard_state)

    def installed(self, wal: Wal, machine: KeyValueMachine) -> None:
        """Log and state of an installed snapshot take the place of the old ones."""
        self.log.wal = wal
        self.machine = machine
        self.clients.moved()
        if not self.is_closed:
            self._guard(self._go_on_installed)

    def _go_on_installed(self) -> None:
        self.driver.installed()
        self.forwarding.applied(self.machine.last_applied)
        self.reads.applied(self.machine.last_applied)

    def stream_snapshot(self, recipient: MemberId) -> None:
        self._hooks.stream_snapshot(recipient)

    def reads_confirmed(self, reads: list[ConfirmedRead]) -> None:
        self.applying.apply_now()
        self.reads.confirmed(reads, self.machine.last_applied)

    def reads_refused(self, request_ids: list[int]) -> None:
        self.reads.refused(request_ids)

    def leadership_changed(self, leadership: Leadership) -> None:
        was_leader = self.is_leader
        if leadership.leader not in (NOBODY, self.leader):
            self.leader_changes_count += 1
            self.forwarding.leader_changed(leadership.leader)
        self.is_leader = leadership.role is Role.LEADER
        self.leader = leadership.leader
        self.clients.moved()
        self.applying.apply_now()
        if was_leader and not self.is_leader:
            self.proposals.leadership_lost()
        if self.is_leader and not was_leader:
            for command, bytes_count, done in self.forwarding.take_back():
                self.proposals.submit(command, bytes_count, done)
        self._hooks.leadership_known(leadership)
        self.standing.notify()

    def configuration_changed(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.standing.configuration_in_force(configuration)
        self.clients.moved()
        self._hooks.configuration_in_force(configuration)
        self.standing.notify()

    # Inside

    def _turn(self) -> None:
        self._is_woken = False
        if self.is_closed:
            return
        try:
            if self.is_leader:
                self.proposals.flush()
            else:
                self.forwarding.flush(self.leader)
            self.reads.flush()
            self.driver.process()
            if self.is_leader and (entry := self.proposals.take_lone_entry()) is not None:
                self.machine.prepare(entry)  # while the disks and the followers work
        except Exception as error:  # noqa: BLE001 - whatever it is, going on could break a promise: the node stops
            self._hooks.failed(error)

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        """Whatever goes wrong in here, going on could break a promise: the node stops."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - as said
            self._hooks.failed(error)

    def ask_core(self, request: Callable[..., T], *arguments: Any) -> T:
        """For requests that the core may reject, which is for the caller; anything else stops the node."""
        try:
            return request(*arguments)
        except Rejected:
            raise
        except Exception as error:
            self._hooks.failed(error)
            raise

    def advance_clock(self) -> None:
        ticks = self.clock.advance()
        if ticks:
            self._guard(self.raft.tick, ticks)

    def _resumed_after_pause(self, elapsed_s: float) -> None:
        _log.warning("the process was paused or starved", extra={"seconds": round(elapsed_s, 3)})
        self.gate.close()

    def _send_forward_reply(self, recipient: MemberId, frame: bytes) -> bool:
        # The follower answers its client once it has applied the write, so it is told of the commit at once.
        is_sent = self._hooks.send(recipient, wire.FrameKind.FORWARD_REPLY, frame)
        self.announce_commit()
        return is_sent

    def _gate_changed(self) -> None:
        self.clients.moved()

    def _refusal_of_sender(self, sender: MemberId) -> RaftkvError | None:
        if not self.is_leader:
            return NotLeader()
        if sender not in self.configuration.members():
            return Unavailable("the node is no member of the cluster that the leader knows; ask a member")
        return None

    def _refusal_of_command(self, command: Command) -> RaftkvError | None:
        if self.is_disk_full and takes_space(command):
            return self.clients.disk_full()
        return self._client_rules.refusal_of(command)
