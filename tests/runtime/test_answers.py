"""Every command ends in exactly one answer, and the answer is true, whatever happens to the nodes meanwhile.

Each write has a key of its own, so what became of it can be seen at the end: a success is there, a refusal is not and
never comes; only an unknown outcome may be either.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import OutcomeUnknown, Rejected
from raftkv.kv import Put
from raftkv.runtime import Node
from raftkv.types import Consistency, WriteMode
from tests.runtime.nodes import MIB, Cluster, get, put_soon, run, until

THREE = ("node1", "node2", "node3")
MODES = (WriteMode.FORWARD, WriteMode.FORWARD, WriteMode.REJECT)


class Ledger:
    """Every write that was submitted, and every answer that came."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.order = random.Random(seed)
        self.answers: dict[str, list[Any]] = {}
        self.reads: list[list[Any]] = []
        self.is_over = False

    def submit(self, size: int = 50) -> None:
        key = f"key{len(self.answers)}"
        told: list[Any] = []
        self.answers[key] = told
        self.some_node().submit(Put(key.encode(), b"v" * size), told.append, self.order.choice(MODES))

    def read(self) -> None:
        told: list[Any] = []
        self.reads.append(told)
        self.some_node().read(b"key1", Consistency.LINEARIZABLE, told.append)

    async def more(self, count: int = 30) -> None:
        """Until so many further writes were submitted."""
        goal = len(self.answers) + count
        await until(lambda: len(self.answers) >= goal, "clients go on asking")

    def some_node(self) -> Node:
        """A running one or one that is stopping: clients do not know."""
        return self.order.choice(list(self.cluster.nodes.values()))

    async def load(self) -> None:
        while not self.is_over:
            for _ in range(self.order.randint(1, 20)):
                self.submit()
            self.read()
            await asyncio.sleep(self.order.choice((0, 0, 0.001, 0.005)))

    def outcomes(self) -> dict[str, Any]:
        wrong = {key: told for key, told in self.answers.items() if len(told) != 1}
        assert wrong == {}
        assert [told for told in self.reads if len(told) != 1] == []
        return {key: told[0] for key, told in self.answers.items()}

    async def check(self) -> None:
        """All is quiet: every write was answered once, and truly."""
        outcomes = self.outcomes()
        await put_soon(self.cluster.nodes["node1"], "last", "1")
        await self.cluster.agree()
        machine = self.cluster.nodes["node1"].replica.machine
        for key, outcome in outcomes.items():
            found = machine.get(key.encode())
            if isinstance(outcome, Rejected):
                assert found is None, f"{key} was refused ({outcome!r}) and took effect"
            elif not isinstance(outcome, OutcomeUnknown):
                assert found is not None, f"{key} was acknowledged and is lost"
                assert found.mod_revision == outcome.revision
                assert found.version == 1
        successes = sum(not isinstance(outcome, Exception) for outcome in outcomes.values())
        assert successes > 20


def play(directory: Path, seed: int, chaos: Callable[[Cluster, Ledger], Awaitable[None]], **changes: Any) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.form(*THREE, **{"request_timeout_ms": 1000, **changes})
        ledger = Ledger(cluster, seed)
        loading = asyncio.create_task(ledger.load())
        await chaos(cluster, ledger)
        ledger.is_over = True
        await loading
        everybody = list(cluster.nodes.values())
        await until(lambda: all(node.replica.proposals.pending_count == 0 for node in everybody), "no writes wait")
        await until(lambda: all(node.replica.forwarding.pending_count == 0 for node in everybody), "none is forwarded")
        await until(lambda: all(told for told in ledger.reads), "no reads wait")
        await ledger.check()

    run(directory, story)


async def settle(cluster: Cluster) -> None:
    await until(lambda: any(node.is_ready for node in cluster.nodes.values()), "there is a leader")


@pytest.mark.parametrize("seed", [1, 2])
def test_while_leadership_moves(tmp_path: Path, seed: int) -> None:
    async def chaos(cluster: Cluster, ledger: Ledger) -> None:
        for _ in range(6):
            await ledger.more()
            target = ledger.order.choice(THREE)
            try:
                await cluster.leader().transfer_leadership(target)
            except (Rejected, StopIteration):
                continue
            await settle(cluster)

    play(tmp_path, seed, chaos)


def test_while_nodes_stop_and_start(tmp_path: Path) -> None:
    async def chaos(cluster: Cluster, ledger: Ledger) -> None:
        for _ in range(4):
            await ledger.more()
            name = ledger.order.choice(THREE)
            await cluster.nodes[name].stop()  # it stays in the list: clients go on asking it
            await cluster.start(name)
            await settle(cluster)

    play(tmp_path, 1, chaos)


def test_while_connections_between_nodes_come_and_go(tmp_path: Path) -> None:
    async def chaos(cluster: Cluster, ledger: Ledger) -> None:
        for _ in range(5):
            await ledger.more()
            node = cluster.nodes[ledger.order.choice(THREE)]
            node.transport.set_peers({})
            for connection in list(node.transport._services._peers.values()):
                connection.abort("for the test")
            await asyncio.sleep(ledger.order.choice((0.01, 0.6)))  # shorter or longer than an election timeout
            node.configuration_in_force(node.replica.configuration)
            await settle(cluster)

    play(tmp_path, 1, chaos)


def test_while_a_node_loses_its_disk(tmp_path: Path) -> None:
    async def chaos(cluster: Cluster, ledger: Ledger) -> None:
        for name in ("node1", "node2"):
            await ledger.more()
            node = cluster.nodes[name]
            cluster.files[name].fail("sync")
            with pytest.raises(Exception, match="No space left"):
                await asyncio.wait_for(node.wait_stopped(), 5)
            cluster.files[name].heal()
            await ledger.more()
            await node.stop()
            await cluster.start(name)
            await settle(cluster)

    play(tmp_path, 1, chaos)


def test_while_more_is_asked_than_can_be_taken(tmp_path: Path) -> None:
    async def chaos(cluster: Cluster, ledger: Ledger) -> None:
        for _ in range(10):
            for _ in range(30):
                ledger.submit(size=60_000)
            await ledger.more(1)

    play(tmp_path, 1, chaos, max_pending_bytes=2 * MIB)


def test_a_read_after_an_acknowledged_write_finds_it_through_every_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        nodes = await cluster.form(*THREE)
        for i in range(10):
            await put_soon(nodes[i % 3], "k", str(i))
            assert await asyncio.gather(*(get(node, "k") for node in nodes)) == [str(i)] * 3
            if i == 5:
                await nodes[0].transfer_leadership(None)

    run(tmp_path, story)
