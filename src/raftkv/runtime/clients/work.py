"""What clients ask of a replica: writes, reads, and where it stands. The hot path of every request.

Answers go to callbacks, once each, perhaps before the call returns: a coroutine for each request would cost more than
all the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from raftkv.errors import DiskFull, InvalidInput, NoLeader, NotLeader, NotReady, RaftkvError, StorageError
from raftkv.kv import KeyValue
from raftkv.runtime.clients.codec import command_bytes, takes_space
from raftkv.runtime.clients.gate import GateState, ReadGate
from raftkv.runtime.clock import TickClock
from raftkv.types import NOBODY, Consistency, WriteMode

if TYPE_CHECKING:
    from raftkv.runtime.replica import Replica

Done = Callable[[Any], None]


class Position(NamedTuple):
    """Where a replica stands; the same object is handed out until a field changes."""

    revision: int
    applied_index: int
    current_term: int
    leader_node_id: str
    leader_http_address: str
    is_marked_stale: bool


class ClientWork:
    """One replica's; see the module."""

    __slots__ = ("_clock", "_gate", "_position", "_replica")

    def __init__(self, replica: Replica, gate: ReadGate, clock: TickClock) -> None:
        self._replica = replica
        self._gate = gate
        self._clock = clock
        self._position: Position | None = None

    def moved(self) -> None:
        """Some field of the position has changed."""
        self._position = None

    def submit(self, command: Any, done: Done, mode: WriteMode) -> None:
        """`done` is told once: a result, a `Rejected`, or `OutcomeUnknown`."""
        if self._replica.is_disk_full and takes_space(command):
            done(self.disk_full())
        elif self._replica.is_leader:
            self._replica.proposals.submit(command, command_bytes(command), done)
        elif self._replica.standing.is_removed:  # its leader may still be heard, but says farewell
            done(self._replica.standing.removed())
        elif self._replica.leader == NOBODY:
            done(NoLeader("no leader is known; try again shortly"))
        elif mode is WriteMode.FORWARD:
            self._replica.forwarding.submit(command, command_bytes(command), done)
        else:
            leader = self._replica.leader_member()
            done(NotLeader(leader.node_id, leader.http_address) if leader else NotLeader())

    def local_value(self, key: bytes) -> bytes | None:
        """The applied value. Raises `NotReady` while what is applied may be older than what clients have seen.

        A state that cannot be read stops the node; that `StorageError` is raised here too.
        """
        if self._gate.state is GateState.CLOSED or self._clock.is_paused():
            raise NotReady("this node has not yet caught up with the leader; try again or ask another member")
        try:
            found = self._replica.machine.value(key)
        except StorageError as error:
            self._replica.failed(error)
            raise
        return found[0] if found is not None else None

    def read(self, key: bytes, consistency: Consistency, done: Done) -> None:
        """`done` is told once: a `KeyValue`, None for no such key, or a `RaftkvError`."""
        if consistency is Consistency.LOCAL:
            if self._gate.state is GateState.CLOSED or self._clock.is_paused():
                done(NotReady("this node has not yet caught up with the leader; try again or ask another member"))
            else:
                done(self._get(key))
            return
        if self._replica.standing.is_removed:
            done(self._replica.standing.removed())
            return
        is_lease = consistency is Consistency.LEASE
        if is_lease:
            if not self._replica.settings.lease_reads:
                done(InvalidInput("lease reads are not enabled (setting lease_reads)"))
                return
            self._replica.advance_clock()  # a lease must be judged by the time it is now, not by the last tick

        def answer(error: RaftkvError | None) -> None:
            done(self._get(key) if error is None else error)

        self._replica.reads.submit(answer, is_lease=is_lease)

    def _get(self, key: bytes) -> KeyValue | StorageError | None:
        try:
            return self._replica.machine.get(key)
        except StorageError as error:
            self._replica.failed(error)
            return error

    def position(self) -> Position:
        position = self._position
        if position is None:
            leader = self._replica.leader_member()
            position = self._position = Position(
                self._replica.machine.revision,
                self._replica.machine.last_applied,
                self._replica.raft.current_term,
                leader.node_id if leader else "",
                leader.http_address if leader else "",
                self._gate.state is GateState.MARKED,
            )
        return position

    def disk_full(self) -> DiskFull:
        return DiskFull(
            f"less than disk_reserve_bytes ({self._replica.settings.disk_reserve_bytes}) is free under "
            f"{self._replica.settings.data_dir}: delete data or make room; reads go on"
        )
