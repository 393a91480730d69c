"""Moves of whole states: snapshots sent and installed, empty nodes absorbed, and the calls that joining makes.

The server's own versions (`runtime.snapshots`, `runtime.opening`, `Node.become_blank`) work on real directories; these
keep their order of steps, with the same crash points, on simulated ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, cast

from raftkv.errors import InvariantViolation, MembershipRefused, NotLeader, RaftkvError, Unavailable
from raftkv.raft import InstallSnapshot
from raftkv.runtime import wire
from raftkv.types import HardState, MemberId, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode

NOTHING_NEEDED = 1 << 62
CHUNK_COUNT = 3


class Staged(NamedTuple):
    snapshot: SnapshotMetadata
    state: dict[bytes, bytes]
    installed: asyncio.Future[None]


class Moves:
    """Of one process."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._needed_from: dict[MemberId, int] = {}
        self._staged: Staged | None = None

    def needed_from(self) -> int:
        return min(self._needed_from.values(), default=NOTHING_NEEDED)

    # Sending

    def send_snapshot(self, recipient: MemberId) -> None:
        if recipient not in self._needed_from:
            self._needed_from[recipient] = self._node.replica.machine.last_applied + 1
            self._node.spawn(self._send(recipient))

    async def _send(self, recipient: MemberId) -> None:
        node, replica = self._node, self._node.replica
        is_sent = False
        try:
            await self._stream(recipient)
            is_sent = True
        except RaftkvError as error:
            node.cluster.trace.event(node.node_id, f"snapshot not sent: {error}")
        finally:
            self._needed_from.pop(recipient, None)
        if node.replica is replica:
            replica.raft.snapshot_sent(recipient, is_sent)
            replica.wake()

    async def _stream(self, recipient: MemberId) -> None:
        node = self._node
        async with node.maintenance.state_lock:
            replica = node.replica
            replica.machine.flush()
            await asyncio.sleep(node.random.expovariate(100))
            replica.applying.hold()
            try:
                replica.machine.flush()
                index, state = replica.machine.last_applied, node.store.content()
            finally:
                replica.resume_applying()
        if not replica.raft.is_leader:
            raise NotLeader
        snapshot = replica.raft.describe_snapshot(index)
        self._needed_from[recipient] = index + 1
        term, sender = replica.raft.current_term, node.member.member_id
        for _ in range(CHUNK_COUNT):
            await asyncio.sleep(node.random.expovariate(20))
            self._require_link(recipient)
        await self._ask(recipient, lambda target: target.moves.receive(sender, term, snapshot, state))

    def _require_link(self, recipient: MemberId) -> SimNode:
        """Both ways, as a connection needs."""
        network, own = self._node.cluster.network, self._node.node_id
        target = network.node_of(recipient)
        if target is None or not target.is_running:
            raise Unavailable("nobody is there")
        if network.is_cut(own, target.node_id) or network.is_cut(target.node_id, own):
            raise Unavailable("the connection broke")
        return target

    async def _ask(self, recipient: MemberId, work: object) -> object:
        """Run the coroutine that `work(target)` makes in the target's process; its result, or what it raises."""
        node, target = self._node, self._require_link(recipient)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        target_life = target.life

        def settle(outcome: object) -> None:
            if answer.done():
                return
            if isinstance(outcome, RaftkvError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def reply(outcome: object) -> None:
            network = node.cluster.network
            if not network.is_cut(target.node_id, node.node_id):
                network.later(node.run_soon, lambda: settle(outcome))

        async def serve() -> None:
            try:
                outcome = await work(target)  # type: ignore[operator]
            except RaftkvError as error:
                outcome = error
            reply(outcome)

        def begin() -> None:
            if target.life == target_life and target.is_running:
                target.spawn(serve())

        node.cluster.network.later(target.run_soon, begin)
        try:
            async with asyncio.timeout(10.0):
                return await answer
        except TimeoutError:
            raise Unavailable("no answer in time") from None

    # Receiving

    async def receive(self, sender: MemberId, term: int, snapshot: SnapshotMetadata, state: dict[bytes, bytes]) -> None:
        replica = self._node.replica
        if snapshot.last_index <= replica.machine.last_applied:
            return
        raft = replica.raft
        staged = self._staged = Staged(snapshot, state, asyncio.get_running_loop().create_future())
        applied_index = raft.last_applied
        replica.step(InstallSnapshot(term, sender, replica.own.member_id, snapshot))
        if applied_index < snapshot.last_index <= raft.last_applied:
            await staged.installed
        elif raft.commit_index < snapshot.last_index:
            raise Unavailable("the snapshot is of an old term; it was not installed")

    async def install(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        node, replica, staged = self._node, self._node.replica, self._staged
        if staged is None or staged.snapshot != snapshot:
            raise InvariantViolation(f"the core accepted a snapshot up to {snapshot.last_index} that is not staged")
        async with node.maintenance.state_lock:
            old_log = replica.log.wal
            await old_log.aclose()
            replica.machine.close()
            log_files, machine = node.exchange(
                snapshot, hard_state or old_log.hard_state, staged.state, node.cluster_id
            )
            replica.installed(node.wal_of(log_files), machine)
        node.cluster.trace.event(node.node_id, f"snapshot {snapshot.last_index} installed")
        if not staged.installed.done():
            staged.installed.set_result(None)

    # Calls of joining

    async def call(self, address: str, kind: wire.CallKind, request: object, timeout_s: float) -> bytes:
        """As `ClusterCalls.call`: ask the node at `address`."""
        del timeout_s  # the only one here is shorter
        found = [node for node in self._node.cluster.network.nodes.values() if node.member.raft_address == address]
        if not found:
            raise Unavailable(f"nobody answers at {address}")
        answer = await self._ask(found[0].member.member_id, lambda target: target.moves.answer(kind, request))
        return cast("bytes", answer)

    async def answer(self, kind: wire.CallKind, request: object) -> bytes:
        if kind is wire.CallKind.PROBE:
            return wire.encode(self._node.replica.standing.introduce())
        if isinstance(request, wire.Absorb):
            await self._become_blank(request)
            own = self._node.replica.own
            return wire.encode(wire.AbsorbReply(own.member_id, own.http_address))
        raise MembershipRefused(f"no such call: {kind}")

    async def _become_blank(self, request: wire.Absorb) -> None:
        node = self._node
        async with node.maintenance.state_lock:
            replica = node.replica
            if replica.cluster_id == request.cluster_id:
                return
            replica.standing.check_absorbable(request)
            replica.close_queues()
            await replica.log.wal.aclose()
            replica.machine.close()
            base = SnapshotMetadata(configuration=request.configuration)
            log_files, machine = node.exchange(base, None, {}, request.cluster_id)
            node.replica = node.new_replica(log_files, machine)
        node.checks.opened(node)
        node.configuration_in_force(node.replica.configuration)
