"""How a node ends: asked to, in order and in time; or by itself, at once, when going on could break a promise."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import (
    InvariantViolation,
    NotReady,
    OutcomeUnknown,
    RaftkvError,
    Rejected,
    ShuttingDown,
    StorageError,
    SyncFailed,
    Unavailable,
)
from raftkv.kv import Put
from raftkv.raft import TimeoutNow, encode_message
from raftkv.runtime import Node, wire
from raftkv.runtime.applying import APPLY_MAX_BYTES
from raftkv.types import Consistency, Entry, EntryKind, WriteMode
from tests.runtime.nodes import Cluster, get, put, put_soon, run, start_write, submit, until

THREE = ("node1", "node2", "node3")


async def ended(node: Node) -> BaseException:
    """What the node stopped for."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the caller looks at it
        await asyncio.wait_for(node.wait_stopped(), 5)
    return caught.value


def start_put(node: Node, key: str) -> list[Any]:
    return start_write(node, Put(key.encode(), b"1"))


def matched(leader: Node, follower: Node) -> int:
    return leader.replica.raft.status().progress[follower.replica.own.member_id].match_index


# ---- A disk that fails


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_failed_disk_ends_the_node_and_acknowledges_nothing(tmp_path: Path, operation: str) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        await put(node, "before", "1")
        cluster.files["node1"].fail(operation, errno.EIO)
        answers = start_put(node, "during")
        assert isinstance(await ended(node), SyncFailed)
        assert [type(answer) for answer in answers] == [OutcomeUnknown]
        with pytest.raises(ShuttingDown):
            await put(node, "after", "1")
        cluster.files["node1"].heal()
        await cluster.stop("node1")
        node = await cluster.start("node1")
        assert await get(node, "before") == "1"
        assert await get(node, "after") is None

    run(tmp_path, story)


def test_a_leader_whose_disk_fails_is_replaced_and_takes_part_in_nothing_more(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        cluster.files["node1"].fail("sync", errno.EIO)
        answers = start_put(node1, "k")
        assert isinstance(await ended(node1), SyncFailed)
        assert [type(answer) for answer in answers] == [OutcomeUnknown]
        await until(lambda: node2.replica.is_leader or node3.replica.is_leader, "another leader")
        await put_soon(node2, "k2", "2")
        # It neither votes nor campaigns: its term stands still while the others' went on.
        assert node1.replica.raft.current_term < node2.replica.raft.current_term
        peer = node2.replica.own.member_id
        hello = TimeoutNow(99, peer, node1.replica.own.member_id)
        node1.on_frame(peer, wire.FrameKind.RAFT, encode_message(hello))
        assert node1.replica.raft.current_term < 99

    run(tmp_path, story)


def test_a_follower_whose_disk_fails_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        last_index = node1.replica.raft.status().last_index
        await until(lambda: matched(node1, node3) == last_index, "node3 has all")
        cluster.files["node3"].fail("sync", errno.EIO)
        await put(node1, "k", "1")
        assert isinstance(await ended(node3), SyncFailed)
        await put(node2, "k", "2")
        # What it could not write it never acknowledged.
        assert matched(node1, node3) == last_index

    run(tmp_path, story)


def test_a_node_that_failed_answers_no_reads_and_no_calls(tmp_path: Path) -> None:
    """Its files are about to be closed, and its state no longer follows the others'."""

    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        await put(node, "k", "1")
        cluster.files["node1"].fail("sync", errno.EIO)
        start_put(node, "k")
        await ended(node)
        for consistency in (Consistency.LOCAL, Consistency.LINEARIZABLE):
            with pytest.raises(Unavailable):
                await get(node, "k", consistency)
        with pytest.raises(NotReady):
            node.local_value(b"k")
        assert not node.is_ready
        with pytest.raises(Unavailable, match="stopping"):
            await node.on_call(wire.CallKind.PROBE, wire.encode(wire.Probe()))
        for call in (node.join("node2", "127.0.0.1:1"), node.remove("node1"), node.transfer_leadership(None)):
            with pytest.raises(RaftkvError):
                await call

    run(tmp_path, story)


# ---- Bugs of ours


class Broken:
    """Stands in the place of a part and fails at whatever it is asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*_arguments: Any, **_named: Any) -> Any:
            raise self._error

        return fail


BUGS: dict[str, Callable[[Node], None]] = {
    "apply": lambda node: setattr(node.replica, "apply_histogram", Broken(KeyError("a bug"))),
    "tick": lambda node: setattr(node.replica, "clock", Broken(KeyError("a bug"))),
    "lingering": lambda node: setattr(node, "_lingering", Broken(KeyError("a bug"))),
    "durable": lambda node: setattr(node.replica, "driver", Broken(KeyError("a bug"))),
    "propose": lambda node: setattr(node.replica.proposals, "_proposer", Broken(InvariantViolation("a bug"))),
}


@pytest.mark.parametrize("where", BUGS)
def test_a_bug_in_a_turn_stops_the_node(tmp_path: Path, where: str) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        BUGS[where](node)
        answers = start_put(node, "k")
        error = await ended(node)
        assert "a bug" in str(error)
        assert len(answers) == 1

    run(tmp_path, story)


@pytest.mark.parametrize("error", [InvariantViolation("a bug"), KeyError("a bug")])
def test_a_bug_while_a_peers_frame_is_handled_stops_the_node_and_not_only_the_connection(
    tmp_path: Path, error: Exception
) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        core = node2.replica.raft
        node2.replica.raft = Broken(error)  # type: ignore[assignment]
        assert await ended(node2) is error
        node2.replica.raft = core
        assert node1.replica.raft is not core

    run(tmp_path, story)


@pytest.mark.parametrize("call", ["join", "remove", "transfer"])
def test_a_bug_that_a_membership_call_hits_stops_the_node(tmp_path: Path, call: str) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        await cluster.start("node3")
        error = InvariantViolation("a bug")
        core = node1.replica.raft

        class BrokenCore:
            """The real core, but for what changes members or leader."""

            def __getattr__(self, name: str) -> Any:
                is_change = name in {"propose_configuration", "transfer_leadership"}
                return getattr(Broken(error) if is_change else core, name)

        node1.replica.raft = BrokenCore()  # type: ignore[assignment]
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "join": lambda: node1.join("node3", cluster.settings["node3"].raft_address),
            "remove": lambda: node1.remove("node2"),
            "transfer": lambda: node1.transfer_leadership("node2"),
        }
        with pytest.raises(InvariantViolation):
            await calls[call]()
        assert await ended(node1) is error

    run(tmp_path, story)


def test_a_state_that_cannot_be_written_stops_the_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        machine = node.replica.machine
        node.replica.machine = Broken(StorageError("the disk is gone"))  # type: ignore[assignment]
        answers = start_put(node, "k")
        assert isinstance(await ended(node), StorageError)
        assert [type(answer) for answer in answers] == [OutcomeUnknown]
        node.replica.machine = machine

    run(tmp_path, story)


@pytest.mark.parametrize("consistency", [*Consistency, None])
def test_a_state_that_cannot_be_read_stops_the_node(tmp_path: Path, consistency: Consistency | None) -> None:
    """A damaged block is met by whoever reads it first; None stands for the shortcut of local reads."""

    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1", lease_reads=True)
        await until(lambda: node.is_ready, "it leads itself")
        machine = node.replica.machine
        error = StorageError("a block of the state is damaged")

        class Unreadable:
            def __getattr__(self, name: str) -> Any:
                return getattr(Broken(error) if name in {"get", "value"} else machine, name)

        node.replica.machine = Unreadable()  # type: ignore[assignment]

        async def read() -> None:
            node.local_value(b"k") if consistency is None else await get(node, "k", consistency)

        with pytest.raises(StorageError, match="damaged"):
            await read()
        assert await ended(node) is error
        node.replica.machine = machine

    run(tmp_path, story)


def test_nothing_more_is_applied_behind_what_could_not_be(tmp_path: Path) -> None:
    """While a snapshot is taken entries wait; the first of them that fails is the last that is tried."""

    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        replica, machine = node.replica, node.replica.machine
        tried: list[int] = []

        class Unwritable:
            def __getattr__(self, name: str) -> Any:
                return getattr(machine, name)

            def apply(self, entries: list[Entry], **_: Any) -> None:
                tried.append(entries[0].index)
                raise StorageError("the disk is gone")

        replica.machine = Unwritable()  # type: ignore[assignment]
        replica.applying.hold()
        replica.apply([Entry(100, 1, EntryKind.COMMANDS, bytes(APPLY_MAX_BYTES))])
        replica.apply([Entry(101, 1, EntryKind.COMMANDS, bytes(APPLY_MAX_BYTES))])
        replica.resume_applying()
        assert isinstance(await ended(node), StorageError)
        assert tried == [100]
        replica.machine = machine

    run(tmp_path, story)


def test_what_becomes_durable_after_a_failure_or_in_another_log_is_acknowledged_to_nobody(tmp_path: Path) -> None:
    """The log may be well when something else has failed; its last burst then still comes to its end."""

    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        replica, driver = node.replica, node.replica.driver
        reported: list[int] = []

        class Watched:
            def durable(self, step_number: int) -> None:
                reported.append(step_number)

        class Exchanged:
            """A log that a snapshot has taken the place of; its numbers mean other steps."""

        replica.driver = Watched()  # type: ignore[assignment]
        node.log_is_durable(Exchanged(), 7)  # type: ignore[arg-type]
        node.log_is_durable(replica.log.wal, 1)
        node.failed(InvariantViolation("for the test"))
        node.log_is_durable(replica.log.wal, 2)
        assert reported == [1]
        replica.driver = driver

    run(tmp_path, story)


# ---- Asked to stop


def test_every_stop_returns_when_all_is_closed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        first = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        await node.stop()  # while the first is under way
        node2 = await Node.start(cluster.settings["node1"])  # would be refused if the directory were still locked
        await node2.stop()
        await first
        await node.stop()
        await node.wait_stopped()

    run(tmp_path, story)


def test_a_stop_goes_on_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await node.wait_stopped()

    run(tmp_path, story)


def test_whoever_waits_at_a_stop_is_answered(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, _ = await cluster.form(*THREE, request_timeout_ms=60_000, shutdown_timeout_ms=200)
        for name in ("node2", "node3"):
            cluster.nodes[name].replica.is_closed = True  # they hear nothing and say nothing, as if hung
        written = start_put(node1, "k")
        read: list[Any] = []
        node1.read(b"k", Consistency.LINEARIZABLE, read.append)
        await until(lambda: node1.replica.proposals.pending_count == 1 and not node1.replica.proposals.has_waiting, "")
        started_s = asyncio.get_running_loop().time()
        await cluster.stop("node1")
        assert asyncio.get_running_loop().time() - started_s < 5
        assert [type(answer) for answer in written] == [OutcomeUnknown]
        assert [type(answer) for answer in read] == [ShuttingDown]
        for name in ("node2", "node3"):
            cluster.nodes[name].replica.is_closed = False

    run(tmp_path, story)


def test_a_join_that_waits_ends_with_the_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1", shutdown_timeout_ms=200)
        await until(lambda: node1.is_ready, "it leads itself")
        node2 = await cluster.start("node2")
        joining = asyncio.create_task(node1.join("node2", cluster.settings["node2"].raft_address))
        await until(lambda: len(node2.replica.configuration.voters) == 1, "it is absorbed")
        node2.replica.is_closed = True  # it never catches up
        await until(lambda: bool(node1.replica.configuration.learners), "it is a learner")
        await cluster.stop("node1")
        node2.replica.is_closed = False
        async with asyncio.timeout(2):
            reply = await joining
        assert not reply.is_complete

    run(tmp_path, story)


def test_a_removal_whose_end_the_node_does_not_see_is_unknown(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE, shutdown_timeout_ms=200)
        node2.replica.is_closed = node3.replica.is_closed = True
        removing = asyncio.create_task(node1.remove("node3"))
        await until(lambda: node1.replica.configuration.is_joint, "the removal is proposed")
        await cluster.stop("node1")
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(2):
                await removing
        node2.replica.is_closed = node3.replica.is_closed = False

    run(tmp_path, story)


def test_a_callback_that_fails_does_not_keep_the_files_from_being_closed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        node.replica.proposals.flush = lambda: False  # type: ignore[method-assign]  # so that it is still waiting
        node.submit(Put(b"k", b"1"), Broken(KeyError("a bug of the caller's")).done, WriteMode.FORWARD)
        await cluster.stop("node1")
        await cluster.start("node1")

    run(tmp_path, story)


def test_a_stopped_node_takes_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        await node.stop()
        with pytest.raises(Rejected):
            await submit(node, Put(b"k", b"1"))
        with pytest.raises(Rejected):
            await get(node, "k")
        with pytest.raises(Rejected):
            await get(node, "k", Consistency.LOCAL)
        assert not node.is_ready

    run(tmp_path, story)
