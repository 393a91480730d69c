"""Snapshots between nodes: whole or not at all, whatever the stream, the sender or this node does in between."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import (
    DiskFull,
    InvariantViolation,
    NotLeader,
    NotReady,
    PeerProtocolError,
    ShuttingDown,
    StorageError,
    Unavailable,
)
from raftkv.raft import AppendEntries, RequestVote
from raftkv.runtime import Node, wire
from raftkv.runtime.snapshots import NOTHING_NEEDED, SnapshotHeader
from raftkv.storage.snapshot_chunks import Begin, End, encode_chunk
from raftkv.types import Consistency, SnapshotMetadata
from tests.runtime.faults import fail_while_closing, hold
from tests.runtime.nodes import Cluster, get, put, run, small_settings, until

KEY_COUNT = 300


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken_off(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """As the transport ends a stream that it lost."""
    for chunk in chunks:
        yield chunk
    raise Unavailable("the snapshot stream broke: connection lost")


async def put_many(node: Node, count: int = KEY_COUNT) -> None:
    for start in range(0, count, 100):
        await asyncio.gather(*(put(node, f"key{i}", "v" * 100) for i in range(start, start + 100)))


async def taken_from(node: Node) -> list[bytes]:
    """The chunks that `node` would stream now."""
    return [chunk async for chunk in node.snapshots._chunks(7)]


async def with_blank(cluster: Cluster, **changes: Any) -> tuple[Node, Node, list[bytes]]:
    """A node with data, a blank one of its cluster that it does not know, and a snapshot of the first."""
    source = await cluster.start("node1", snapshot_chunk_bytes=4096)
    blank = await cluster.start("node2", **changes)
    await until(lambda: source.is_ready and blank.is_ready, "each leads itself")
    await put_many(source)
    await make_blank(blank, source)
    return source, blank, await taken_from(source)


async def make_blank(blank: Node, source: Node) -> None:
    identity = blank.directory.identity
    configuration = source.replica.configuration
    cluster_id = source.replica.cluster_id
    await blank.become_blank(wire.Absorb(cluster_id, identity.cluster_id, identity.member_id, configuration))


async def receive(node: Node, source: Node, chunks: AsyncIterator[bytes]) -> None:
    async with asyncio.timeout(10):
        await node.snapshots.receive(source.replica.own.member_id, chunks)


def assert_same_state(node: Node, source: Node) -> None:
    assert node.replica.machine.state_hash() == source.replica.machine.state_hash()
    assert node.replica.machine.last_applied == source.replica.machine.last_applied


def staged(node: Node) -> list[str]:
    area = node.directory.path / "staging"
    return [path.name for path in area.iterdir()] if area.exists() else []


def test_a_snapshot_takes_the_place_of_log_and_state(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)
        assert node.replica.log.base.last_index == source.replica.machine.last_applied
        assert node.replica.log.base.configuration == source.replica.configuration
        assert node.snapshots.installed_count == 1
        assert staged(node) == []
        term = node.replica.raft.current_term
        await cluster.stop("node2")
        node = await cluster.start("node2")
        assert_same_state(node, source)
        assert node.replica.raft.current_term == term

    run(tmp_path, story)


def test_a_vote_given_before_a_snapshot_came_is_remembered_behind_it(tmp_path: Path) -> None:
    """The log that held the vote is thrown away; forgetting it would allow a second one in the term (Raft §5.2)."""

    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        candidate, own = source.replica.own.member_id, node.replica.own.member_id
        term = source.replica.raft.current_term
        node.replica.step(RequestVote(term, candidate, own, 0, 0, leadership_transfer=True))
        await until(lambda: node.replica.log.hard_state.voted_for == candidate, "the vote is durable")
        await receive(node, source, stream(chunks))
        assert node.snapshots.installed_count == 1
        await cluster.stop("node2")
        node = await cluster.start("node2")
        status = node.replica.raft.status()
        assert (status.current_term, status.voted_for) == (term, candidate)

    run(tmp_path, story)


def test_a_stream_that_breaks_anywhere_changes_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        assert len(chunks) > 6
        for count in {0, 1, 2, len(chunks) // 2, len(chunks) - 1, len(chunks)}:
            with pytest.raises(Unavailable):
                await receive(node, source, broken_off(chunks[:count]))
            assert node.replica.machine.last_applied == 0
            assert staged(node) == []
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)

    run(tmp_path, story)


def flipped(chunks: list[bytes], at: int) -> list[bytes]:
    changed = bytearray(chunks[at])
    changed[len(changed) // 2] ^= 1
    return [*chunks[:at], bytes(changed), *chunks[at + 1 :]]


def with_header(chunks: list[bytes], **changes: Any) -> list[bytes]:
    header = wire.decode(chunks[0], SnapshotHeader)
    fields = {name: getattr(header.snapshot, name) for name in header.snapshot.__struct_fields__}
    snapshot = SnapshotMetadata(**{**fields, **changes})
    return [wire.encode(SnapshotHeader(header.term, snapshot)), *chunks[1:]]


HOSTILE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "nothing": lambda chunks: [],
    "no header": lambda chunks: chunks[1:],
    "a header alone": lambda chunks: chunks[:1],
    "garbage": lambda chunks: [chunks[0], b"\xff" * 100],
    "an empty chunk": lambda chunks: [*chunks[:3], b"", *chunks[3:]],
    "a lost chunk": lambda chunks: [*chunks[:3], *chunks[4:]],
    "a chunk twice": lambda chunks: [*chunks[:3], chunks[2], *chunks[3:]],
    "a flipped bit": lambda chunks: flipped(chunks, len(chunks) // 2),
    "cut short": lambda chunks: chunks[:-1],
    "more than the end": lambda chunks: [*chunks, chunks[-1]],
    "another index": lambda chunks: with_header(chunks, last_index=10_000),
    "another term": lambda chunks: with_header(chunks, last_term=0),
    "no state at all": lambda chunks: [chunks[0], encode_chunk(Begin(0, 0, 0)), encode_chunk(End(1, 0))],
}


def test_a_hostile_stream_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        for kind, spoil in HOSTILE.items():
            with pytest.raises(PeerProtocolError):
                await receive(node, source, stream(spoil(chunks)))
            assert node.replica.machine.last_applied == node.replica.raft.last_applied == 0, kind
            assert staged(node) == [], kind
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)

    run(tmp_path, story)


def test_a_snapshot_that_does_not_fit_the_disk_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster, disk_reserve_bytes=1 << 50)
        with pytest.raises(DiskFull):
            await receive(node, source, stream(chunks))
        assert node.replica.machine.last_applied == 0

    run(tmp_path, story)


def test_a_snapshot_of_an_old_term_is_not_installed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        header = wire.decode(chunks[0], SnapshotHeader)
        node.replica.step(RequestVote(header.term + 1, 7, node.replica.own.member_id, 0, 0, leadership_transfer=True))
        with pytest.raises(Unavailable, match="old term"):
            await receive(node, source, stream(chunks))
        assert node.snapshots.installed_count == 0
        assert staged(node) == []

    run(tmp_path, story)


def test_a_node_that_leads_no_more_sends_no_snapshot(tmp_path: Path) -> None:
    """Its term is another leader's by now; whoever took it for that one would refuse the real one's messages."""

    async def story(cluster: Cluster) -> None:
        source = await cluster.start("node1")
        await until(lambda: source.is_ready, "it leads itself")
        replica = source.replica
        stranger, term = 7, replica.raft.current_term + 1
        last_index = replica.log.last_index
        replica.step(RequestVote(term, stranger, replica.own.member_id, last_index, term - 1, leadership_transfer=True))
        replica.raft.set_randomized_election_timeout(1 << 30)
        with pytest.raises(NotLeader):
            await taken_from(source)
        assert staged(source) == []

    run(tmp_path, story)


def test_a_snapshot_that_was_overtaken_by_entries_is_not_waited_for(tmp_path: Path) -> None:
    """While an old leader streams, a new one may have brought the same entries."""

    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        entries = source.replica.log.entries(1, source.replica.machine.last_applied, 1 << 30)

        async def overtaken() -> AsyncIterator[bytes]:
            for chunk in chunks[:-1]:
                yield chunk
            last = entries[-1].index
            sender, recipient = source.replica.own.member_id, node.replica.own.member_id
            node.replica.step(AppendEntries(entries[-1].term, sender, recipient, 0, 0, last, 0, tuple(entries)))
            await until(lambda: node.replica.machine.last_applied == last, "applied")
            yield chunks[-1]

        await receive(node, source, overtaken())
        assert node.snapshots.installed_count == 0
        assert_same_state(node, source)

    run(tmp_path, story)


def test_what_this_node_has_already_is_accepted_unread(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        await receive(node, source, stream(chunks))
        await receive(node, source, broken_off(chunks[:1]))
        assert node.snapshots.installed_count == 1

    run(tmp_path, story)


def test_a_newer_stream_does_not_take_away_what_is_being_installed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        await node.maintenance.state_lock.acquire()  # the install has to wait
        first = asyncio.create_task(receive(node, source, stream(chunks)))
        await until(lambda: node.replica.driver.is_installing, "the core has accepted it")
        first.cancel()  # as the transport does for a newer one
        second = asyncio.create_task(asyncio.wait([first]))
        await asyncio.sleep(0)
        node.maintenance.state_lock.release()
        await second
        assert first.cancelled()
        await until(lambda: node.snapshots.installed_count == 1, "installed all the same")
        assert_same_state(node, source)
        await put_many(source)
        await receive(node, source, stream(await taken_from(source)))
        assert_same_state(node, source)

    run(tmp_path, story)


def test_a_stop_waits_for_an_install_that_has_begun(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        reached, may_go_on = hold(node, "switch")
        receiving = asyncio.create_task(receive(node, source, stream(chunks)))
        await asyncio.to_thread(reached.wait, 10)
        stopping = asyncio.create_task(cluster.stop("node2"))
        await asyncio.sleep(0)
        assert not stopping.done()
        may_go_on.set()
        await stopping
        await receiving
        node = await cluster.start("node2")
        assert_same_state(node, source)

    run(tmp_path, story)


def test_a_stop_does_not_wait_for_an_install_that_has_not_begun(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        node.install_snapshot = lambda *_: None  # type: ignore[method-assign]  # it never begins
        receiving = asyncio.create_task(receive(node, source, stream(chunks)))
        await until(lambda: node.replica.driver.is_installing, "the core has accepted it")
        await cluster.stop("node2")
        with pytest.raises(ShuttingDown):
            await receiving
        node = await cluster.start("node2")
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)

    run(tmp_path, story)


def test_nothing_is_read_from_files_that_are_being_exchanged(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster, start_read_wait_ms=0)
        await until(lambda: node.position().is_marked_stale, "reads are served, marked")
        reached, may_go_on = hold(node, "switch")
        receiving = asyncio.create_task(receive(node, source, stream(chunks)))
        await asyncio.to_thread(reached.wait, 10)
        for _ in range(3):
            node.replica.tick()
            with pytest.raises(NotReady):
                node.local_value(b"key1")
            with pytest.raises(NotReady):
                await get(node, "key1", Consistency.LOCAL)
        may_go_on.set()
        await receiving
        await until(lambda: node.position().is_marked_stale, "reads are served again")
        assert node.local_value(b"key1") == b"v" * 100

    run(tmp_path, story)


@pytest.mark.parametrize("moment", ["new_generation", "switch", "remove_leftovers"])
def test_a_crash_while_installing_leaves_the_old_state_or_the_new(tmp_path: Path, moment: str) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        reached, may_go_on = hold(node, moment)
        receiving = asyncio.create_task(receive(node, source, stream(chunks)))
        await asyncio.to_thread(reached.wait, 10)
        image = tmp_path / "image" / "node2"
        shutil.copytree(node.directory.path, image)
        may_go_on.set()
        await receiving
        again = await Node.start(small_settings(tmp_path / "image", "node2"))
        cluster.nodes["again"] = again
        if moment == "remove_leftovers":
            assert_same_state(again, source)
        else:
            assert again.replica.machine.last_applied == 0
            await receive(again, source, stream(chunks))
            assert_same_state(again, source)
        assert [path.name for path in image.glob("generation-*")] == [again.directory.current.directory.name]

    run(tmp_path, story)


def test_an_install_that_fails_stops_the_node_and_a_restart_mends_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        error = InvariantViolation("for the test")

        def fail(*_: Any, **__: Any) -> Any:
            raise error

        node.directory.switch = fail  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await receive(node, source, stream(chunks))
        with pytest.raises(InvariantViolation):
            await node.wait_stopped()
        await cluster.stop("node2")
        node = await cluster.start("node2")
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)

    run(tmp_path, story)


def test_files_are_not_exchanged_when_the_log_has_failed(tmp_path: Path) -> None:
    """What a failed disk says of the new ones could not be believed either."""

    async def story(cluster: Cluster) -> None:
        source, node, chunks = await with_blank(cluster)
        generation = node.directory.current
        fail_while_closing(node.replica.log.wal, cluster.files["node2"])
        with pytest.raises(Unavailable):
            await receive(node, source, stream(chunks))
        with pytest.raises(StorageError):
            await node.wait_stopped()
        assert node.directory.current == generation
        await cluster.stop("node2")
        node = await cluster.start("node2")
        await receive(node, source, stream(chunks))
        assert_same_state(node, source)

    run(tmp_path, story)


def test_a_snapshot_that_cannot_be_sent_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        node.snapshots.send(7)
        assert node.snapshots.needed_from() <= node.replica.machine.last_applied + 1
        await until(lambda: node.snapshots.needed_from() == NOTHING_NEEDED, "given up")
        assert node.snapshots.sent_count == 0
        assert staged(node) == []
        await put(node, "k", "1")

    run(tmp_path, story)


def test_a_state_that_cannot_be_flushed_for_a_snapshot_stops_the_sender(tmp_path: Path) -> None:
    """It is this node's disk that failed, not the stream."""

    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        machine = node1.replica.machine

        class FailingMachine:
            def __getattr__(self, name: str) -> Any:
                return getattr(machine, name)

            def flush(self) -> None:
                raise StorageError("the disk is gone")

        node1.replica.machine = FailingMachine()  # type: ignore[assignment]
        node1.snapshots.send(node2.replica.own.member_id)
        with pytest.raises(StorageError, match="the disk is gone"):
            async with asyncio.timeout(10):
                await node1.wait_stopped()
        node1.replica.machine = machine

    run(tmp_path, story)


def test_a_follower_whose_leader_dies_while_it_sends_gets_all_from_the_next(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form("node1", "node2", "node3", snapshot_chunk_bytes=4096)
        await cluster.stop("node3")
        await put_many(node1, 1000)
        await asyncio.gather(node1.maintenance.flush(), node2.maintenance.flush())
        last = node1.replica.machine.last_applied
        assert min(node.replica.log.base.last_index for node in (node1, node2)) > last // 2
        half_way, really = asyncio.Event(), node1.snapshots._chunks

        async def stuck(recipient: int) -> AsyncIterator[bytes]:
            count = 0
            async for chunk in really(recipient):
                yield chunk
                count += 1
                if count == 5:
                    half_way.set()
                    await node1.loop.create_future()

        node1.snapshots._chunks = stuck  # type: ignore[method-assign]
        node3 = await cluster.start("node3")
        assert node3.replica.machine.last_applied < node1.replica.log.base.last_index
        await half_way.wait()
        node1.failed(Unavailable("for the test"))
        await until(lambda: node2.replica.is_leader, "node2 leads")
        await until(lambda: node3.replica.machine.last_applied >= last, "node3 has caught up")
        assert await get(node3, "key999") == "v" * 100
        assert node3.snapshots.installed_count == 1

    run(tmp_path, story)
