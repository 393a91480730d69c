"""Real nodes in this process: real files, real sockets on loopback, small limits. Every wait has a deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from raftkv.errors import RaftkvError, Unavailable
from raftkv.kv import Delete, Put
from raftkv.runtime import Node, Settings
from raftkv.types import Consistency, WriteMode
from tests.ports import free_port
from tests.runtime.faults import FailingFiles

DEADLINE_S = 20.0
MIB = 1 << 20


def small_settings(directory: Path, node_id: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "node_id": node_id,
        "data_dir": directory / node_id,
        "raft_port": free_port(),
        "server_port": free_port(),
        "segment_size_bytes": 256 * 1024,
        "flush_interval_bytes": 64 * 1024,
        "log_retention_bytes": 0,
        "disk_reserve_bytes": 0,
        "write_buffer_bytes": MIB,
        "block_cache_bytes": MIB,
        "join_timeout_ms": 15_000,
        "request_timeout_ms": 10_000,
        "start_read_wait_ms": 60_000,
    }
    return Settings(**{**values, **changes})


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll the event loop's state; there is no event for "all nodes agree"."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 -- the condition spans several nodes
            await asyncio.sleep(0.005)
    assert condition(), what


async def ticked(node: Node, count: int) -> None:
    """Until the node's core has lived through `count` more ticks: time as the node sees it."""
    state = node.replica.raft._state
    goal = state.now_ticks + count
    await until(lambda: state.now_ticks >= goal, f"{count} ticks")


async def submit(node: Node, command: Any, mode: WriteMode = WriteMode.FORWARD) -> Any:
    """The result of one command; raises the error that it ended with."""
    return await told(lambda done: node.submit(command, done, mode))


async def told(ask: Callable[[Callable[[Any], None]], None]) -> Any:
    """What `ask` tells its `done`; raises a `RaftkvError` that it is told."""
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ask(lambda result: None if outcome.cancelled() else outcome.set_result(result))
    async with asyncio.timeout(DEADLINE_S):  # not wait_for, which may swallow a cancellation
        result = await outcome
    if isinstance(result, RaftkvError):
        raise result
    return result


def start_write(node: Node, command: Any) -> list[Any]:
    """Submit a command and return where its answers will be: one, if all is well."""
    answers: list[Any] = []
    node.submit(command, answers.append, WriteMode.FORWARD)
    return answers


async def put(node: Node, key: str, value: str) -> Any:
    return await submit(node, Put(key.encode(), value.encode()))


async def put_soon(node: Node, key: str, value: str) -> None:
    """A write that is refused for now is tried again, as a client would."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await put(node, key, value)
            except Unavailable:
                await asyncio.sleep(0.01)
            else:
                return


async def delete(node: Node, key: str) -> Any:
    return await submit(node, Delete(key.encode()))


async def get(node: Node, key: str, consistency: Consistency = Consistency.LINEARIZABLE) -> str | None:
    result = await told(lambda done: node.read(key.encode(), consistency, done))
    return None if result is None else result.value.decode()


class Cluster:
    """Nodes by name; each is stopped at the end, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: dict[str, Node] = {}
        self.settings: dict[str, Settings] = {}
        self.files: dict[str, FailingFiles] = {}

    async def start(self, node_id: str, **changes: Any) -> Node:
        """Start `node_id`, with the settings of its last start unless changes are given."""
        if changes or node_id not in self.settings:
            self.settings[node_id] = small_settings(self.directory, node_id, **changes)
        files = self.files.setdefault(node_id, FailingFiles())
        node = self.nodes[node_id] = await Node.start(self.settings[node_id], files=files)
        return node

    async def stop(self, node_id: str) -> None:
        await self.nodes.pop(node_id).stop()

    async def join(self, through: str, node_id: str) -> None:
        reply = await self.nodes[through].join(node_id, self.settings[node_id].raft_address)
        assert reply.is_complete, reply.progress

    async def form(self, *node_ids: str, **changes: Any) -> list[Node]:
        """Start them all and join them to the first."""
        for node_id in node_ids:
            await self.start(node_id, **changes)
        first = self.nodes[node_ids[0]]
        await until(lambda: first.is_ready, "the first node leads itself")
        for node_id in node_ids[1:]:
            await self.join(node_ids[0], node_id)
        return [self.nodes[node_id] for node_id in node_ids]

    def leader(self) -> Node:
        return next(node for node in self.nodes.values() if node.replica.is_leader)

    async def agree(self) -> None:
        """Every node has applied what the leader has, and holds the same state."""
        await until(lambda: any(node.replica.is_leader for node in self.nodes.values()), "a leader")
        index = self.leader().replica.machine.last_applied
        await until(
            lambda: all(node.replica.machine.last_applied >= index for node in self.nodes.values()), "all caught up"
        )
        hashes = {node_id: node.replica.machine.state_hash() for node_id, node in self.nodes.items()}
        assert len(set(hashes.values())) == 1, hashes


@contextlib.asynccontextmanager
async def cluster_in(directory: Path) -> AsyncIterator[Cluster]:
    """A cluster whose nodes are stopped at the end, which then must have left no task and no unseen error behind."""
    cluster = Cluster(directory)
    unseen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unseen.append(f"{context['message']}: {context.get('exception')!r}")
    )
    try:
        yield cluster
    finally:
        for node in cluster.nodes.values():
            await node.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert unseen == []


def run(directory: Path, story: Callable[[Cluster], Awaitable[None]]) -> None:
    """Play `story` in a loop of its own."""

    async def main() -> None:
        async with cluster_in(directory) as cluster:
            await story(cluster)

    asyncio.run(main())
