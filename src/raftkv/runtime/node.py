"""A running node: opens the data directory, joins the rooms, answers the API, and stops in order.

Life: `Node.start` opens and locks the directory, recovers log and state, listens for peers and ticks. Then it is
bootstrapped as a cluster of one, or waits blank to be joined (`joining`). `stop` hands leadership over, flushes
and closes. An error that makes it unsafe to go on (`StorageError`, `InvariantViolation`, any bug in a turn of
the core) stops the node at once: it neither votes nor acknowledges any more, and `wait_stopped` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from raftkv.errors import OutcomeUnknown, PeerProtocolError, RaftkvError, Rejected, Unavailable
from raftkv.kv import Command
from raftkv.raft import Leadership
from raftkv.runtime import wire
from raftkv.runtime.addresses import join_address
from raftkv.runtime.clients.work import Done, Position
from raftkv.runtime.maintenance import Maintenance
from raftkv.runtime.membership.calls import ClusterCalls
from raftkv.runtime.membership.joining import Joining
from raftkv.runtime.membership.lingering import LingeringPeers
from raftkv.runtime.opening import open_replica, reopen_blank, transport_settings
from raftkv.runtime.replica import Replica
from raftkv.runtime.settings import Settings
from raftkv.runtime.snapshots import Snapshots
from raftkv.runtime.threads import run_in_thread
from raftkv.runtime.watching.metrics import LogMetrics, NodeCollector
from raftkv.runtime.watching.status import members_of, stats_of
from raftkv.storage import DataDirectory, FileOps, OsFiles, Wal
from raftkv.transport import PeerIdentity, Transport
from raftkv.types import Configuration, Consistency, HardState, MemberId, SnapshotMetadata, WriteMode

_log = logging.getLogger("raftkv.node")


class Node:
    """See the module; made by `Node.start`. Everything is for the loop's thread."""

    def __init__(self, settings: Settings, directory: DataDirectory, files: FileOps) -> None:
        self.settings = settings
        self.directory = directory
        self.files = files
        self.replica: Replica
        self._members_logged: str | None = None
        self._is_open = False
        """There is a replica."""
        self.metrics_registry = CollectorRegistry()
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[None] = self.loop.create_future()
        self._stopping: asyncio.Task[None] | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._tick_due_s = 0.0
        self.transport = Transport(self._identity(), self, transport_settings(settings))
        self._lingering = LingeringPeers(self.transport.set_peers, self.loop.time)
        self.maintenance = Maintenance(settings, lambda: self.replica, self._log_needed_from, self.failed)
        self.snapshots = Snapshots(self)
        self.calls = ClusterCalls(self)
        self.log_metrics = LogMetrics()
        self.metrics_registry.register(NodeCollector(self))

    @classmethod
    async def start(cls, settings: Settings, *, files: FileOps | None = None) -> Node:
        """Open, recover and begin to take part; `files` is where the log lives, the operating system's by default.

        Raises `DataDirectoryError`, `CorruptData`, another `StorageError`, or `OSError` when a port is in use; nothing
        is left open then, nor after a cancellation.
        """
        directory = await run_in_thread(
            lambda: DataDirectory.open(settings.data_dir, settings.node_id), DataDirectory.close
        )
        try:
            node = cls(settings, directory, files or OsFiles())
        except BaseException:
            directory.close()
            raise
        try:
            await node._start()
        except BaseException:
            await node._close()
            raise
        return node

    async def _start(self) -> None:
        joining = Joining(self)
        self.replica = await open_replica(self, joining.should_bootstrap)
        self._is_open = True
        port = await self.transport.start(self.settings.raft_host, self.settings.raft_port)
        facts = {"raft": join_address(self.settings.raft_host, port), "data_dir": str(self.settings.data_dir)}
        _log.info("started", extra=facts)
        self.configuration_in_force(self.replica.configuration)
        self._tick_due_s = self.loop.time()
        self._tick()
        self.spawn(self.maintenance.run())
        self.replica.standing.campaign_if_alone()
        self.spawn(joining.run())
        if self._stopped.done():
            self._stopped.result()  # raises what has already gone wrong

    # The API's view (`api.port.NodePort`)

    @property
    def is_ready(self) -> bool:
        return self.replica.gate.is_confirmed and bool(self.replica.leader)

    def position(self) -> Position:
        return self.replica.clients.position()

    def local_value(self, key: bytes) -> bytes | None:
        return self.replica.clients.local_value(key)

    def read(self, key: bytes, consistency: Consistency, done: Done) -> None:
        self.replica.clients.read(key, consistency, done)

    def submit(self, command: Command, done: Done, mode: WriteMode) -> None:
        self.replica.clients.submit(command, done, mode)

    async def join(self, node_id: str, raft_address: str) -> wire.ChangeReply:
        """See `Membership.join`; any node takes it and asks the leader."""
        return await self.calls.join(wire.Join(node_id, raft_address))

    async def remove(self, node_id: str) -> None:
        """See `Membership.remove`; any node takes it and asks the leader."""
        await self.calls.remove(wire.Remove(node_id))

    async def transfer_leadership(self, node_id: str | None) -> None:
        """Returns once another member leads. Raises `MembershipRefused` for no voter of that name, `Unavailable`."""
        await self.calls.transfer(wire.Transfer(node_id or ""))

    def stats(self) -> Mapping[str, Any]:
        return stats_of(self.replica)

    # Stopping

    async def stop(self) -> None:
        """Hand leadership over, end all work, flush, close. Idempotent; the data directory is free on return.

        It goes on if the caller is cancelled. Raises `StorageError` when the state could not be flushed.
        """
        if self._stopping is None:
            self._stopping = self.loop.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if not self._stopped.done():
            _log.info("stopping")
            await self._hand_over()
        try:
            await self._close(is_flushing=not self._stopped.done())
        finally:
            if not self._stopped.done():
                self._stopped.set_result(None)
                _log.info("stopped")

    async def wait_stopped(self) -> None:
        """Returns when the node was stopped; raises what made it stop by itself."""
        await asyncio.shield(self._stopped)

    def require_sound(self) -> None:
        """Before files are opened anew: a node that has failed must not. Raises `Unavailable`."""
        if self._stopped.done():
            raise Unavailable("this node has failed and is stopping")

    def failed(self, error: BaseException) -> None:
        """Stop taking part at once; `stop` then only closes."""
        if self._stopped.done():
            return
        _log.critical("the node stops: %s", error, exc_info=None if isinstance(error, RaftkvError) else error)
        self._stopped.set_exception(error)
        self._stopped.exception()  # retrieved here: a node that nobody waits for is not an unhandled error
        self._end_work()
        self.transport.set_peers({})

    async def _hand_over(self) -> None:
        others = [m for m in self.replica.configuration.voters if m.member_id != self.replica.own.member_id]
        if self.replica.is_leader and others:
            with contextlib.suppress(Rejected):  # no longer the leader, or nobody to take over: nothing to hand over
                await self.replica.standing.hand_over(None, self.settings.shutdown_timeout_ms / 1000)

    async def _close(self, *, is_flushing: bool = False) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._end_work()
        # An exchange of files that has begun comes to its end first: what it opens would be closed by nobody.
        async with self.maintenance.state_lock:
            self._end_work()  # of the replica that the exchange has made
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.snapshots.close()
            await self.transport.stop()
            await self._close_files(is_flushing)

    def _end_work(self) -> None:
        if not self._is_open:
            return
        try:
            self.replica.close_queues()
        except Exception:  # noqa: BLE001
            # Somebody's `done` has raised, which is a bug of theirs; it must not keep the files from being closed.
            _log.exception("whoever waited could not be told that the node stops")

    async def _close_files(self, is_flushing: bool) -> None:
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(run_in_thread, self.directory.close)
            if self._is_open:
                closing.push_async_callback(run_in_thread, self.replica.machine.close)
                closing.push_async_callback(self.replica.log.wal.aclose)
                if is_flushing:
                    await run_in_thread(self.replica.machine.flush)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the node until it stops; an error that gets out of it stops the node."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def _identity(self) -> PeerIdentity:
        identity = self.directory.identity
        return PeerIdentity(identity.cluster_id, identity.member_id, self.settings.node_id, self.settings.raft_address)

    # Ticks

    def _tick(self) -> None:
        now_s = self.loop.time()
        try:
            self.replica.clock.observe_lateness(now_s - self._tick_due_s)
            self.replica.tick()
            self._lingering.expire()
        except Exception as error:  # noqa: BLE001 - a node that ticks no more must not look alive
            self.failed(error)
        interval_s = self.settings.tick_interval_ms / 1000
        self._tick_due_s = max(self._tick_due_s + interval_s, now_s)
        if not self._stopped.done():
            self._tick_handle = self.loop.call_at(self._tick_due_s, self._tick)

    def _log_needed_from(self) -> int:
        return self.snapshots.needed_from()

    # ReplicaHooks

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool:
        return self.transport.send(member_id, kind, payload)

    def flush_sent(self) -> None:
        self.transport.flush()

    def configuration_in_force(self, configuration: Configuration) -> None:
        self._lingering.update(configuration, self.replica.own.member_id)
        members = ", ".join(
            member["id"] if member["suffrage"] == "Voter" else f"{member['id']} (learner)"
            for member in members_of(configuration)
        )
        if members != self._members_logged:
            self._members_logged = members
            _log.info("members: %s", members or "none yet")

    def leadership_known(self, leadership: Leadership) -> None:
        leader = self.replica.leader_member()
        name = leader.node_id if leader else (hex(leadership.leader) if leadership.leader else "nobody")
        _log.info("now %s: %s", leadership.role.value, leadership.cause, extra={"leader": name})

    def stream_snapshot(self, recipient: MemberId) -> None:
        self.snapshots.send(recipient)

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        self.spawn(self.snapshots.install(snapshot, hard_state))

    def log_is_durable(self, wal: Wal, step_number: int) -> None:
        """Reported by `wal`, which may have been exchanged since."""
        if wal is self.replica.log.wal:
            self.replica.durable(step_number)

    # TransportHandler

    def on_frame(self, sender: MemberId, kind: int, payload: bytes) -> None:
        self.replica.handle_frame(sender, kind, payload)

    def on_unreachable(self, member_id: MemberId) -> None:
        self.replica.unreachable(member_id)

    def accept_peer(self, peer: PeerIdentity) -> str:
        if self._stopping is not None or self._stopped.done():
            return "this node is stopping"
        self._lingering.meet(peer.member_id, peer.raft_address)
        return ""

    async def on_snapshot(self, sender: MemberId, chunks: AsyncIterator[bytes]) -> None:
        with self._stopping_at_faults():
            await self.snapshots.receive(sender, chunks)

    async def on_call(self, kind: int, payload: bytes) -> bytes:
        if self._stopping is not None or self._stopped.done():
            raise Unavailable("this node is stopping")
        with self._stopping_at_faults():
            return await self.calls.answer(kind, payload)

    @contextlib.contextmanager
    def _stopping_at_faults(self) -> Iterator[None]:
        """What a peer asked for may be refused; an error that is about this node stops it."""
        try:
            yield
        except (Rejected, OutcomeUnknown, PeerProtocolError):
            raise
        except Exception as error:
            self.failed(error)
            raise OutcomeUnknown("the node has failed") from error

    async def become_blank(self, request: wire.Absorb) -> None:
        """Leave the empty cluster of one and start again as a blank server of another, unless that is so already."""
        async with self.maintenance.state_lock:
            self.require_sound()
            replica = self.replica
            if replica.cluster_id == request.cluster_id:
                return
            self.calls.check_idle()
            replica.standing.check_absorbable(request)
            replica.close_queues()  # from here on nothing can be written that would be thrown away
            _log.warning("leaving the empty cluster of one for another", extra={"cluster": hex(request.cluster_id)})
            try:
                self.replica = await reopen_blank(self, replica, request)
                self.maintenance.check_disk()
            except BaseException as error:
                self.failed(error)
                raise
        if self._stopped.done():
            self._end_work()  # of the replica that was not there yet when the node failed
            raise OutcomeUnknown("the node has failed while it changed sides")
        self.transport.set_identity(self._identity())
        self.configuration_in_force(self.replica.configuration)
