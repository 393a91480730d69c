"""Reads that wait for a confirmation: one round for many, an id never used twice, each answered once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import Overloaded, ReadTimeout, ShuttingDown
from raftkv.raft import ConfirmedRead
from raftkv.runtime.clients.reads import ReadQueue
from raftkv.types import Consistency
from tests.runtime.nodes import Cluster, get, put, run, until

TIMEOUT_S = 5.0


class World:
    """A queue, the core that it asks (the questions so far), and a clock."""

    def __init__(self, pending_max_count: int = 100) -> None:
        self.now_s = 0.0
        self.asked: list[tuple[int, bool]] = []
        self.wake_count = 0
        self.answers: list[Any] = []
        self.queue = ReadQueue(
            lambda request_id, is_lease: self.asked.append((request_id, is_lease)),
            self._wake,
            lambda: self.now_s,
            first_request_id=50,
            timeout_s=TIMEOUT_S,
            pending_max_count=pending_max_count,
        )

    def _wake(self) -> None:
        self.wake_count += 1

    def read(self, count: int = 1, is_lease: bool = False) -> None:
        for _ in range(count):
            self.queue.submit(self.answers.append, is_lease=is_lease)

    def confirm(self, request_id: int, read_index: int, applied_index: int) -> None:
        self.queue.confirmed([ConfirmedRead(request_id, read_index)], applied_index)


def test_reads_that_come_together_share_one_question() -> None:
    world = World()
    world.read(3)
    assert world.wake_count == 1
    assert world.queue.flush()
    assert not world.queue.flush()
    assert world.asked == [(50, False)]
    assert world.answers == []
    world.confirm(50, 7, applied_index=7)
    assert world.answers == [None, None, None]
    assert world.queue.pending_count == 0


def test_reads_that_come_during_a_round_wait_for_the_next() -> None:
    """The round that is under way may have begun before them, and would prove nothing for them (Thesis §6.4)."""
    world = World()
    world.read()
    world.queue.flush()
    world.read(2)
    assert not world.queue.flush()
    assert world.asked == [(50, False)]
    world.confirm(50, 7, applied_index=7)
    assert world.answers == [None]
    assert world.queue.flush()
    assert world.asked[1:] == [(51, False)]
    world.confirm(51, 7, applied_index=7)
    assert world.answers == [None] * 3


def test_a_confirmed_read_waits_until_the_state_has_the_index() -> None:
    world = World()
    world.read()
    world.queue.flush()
    world.confirm(50, 7, applied_index=6)
    world.queue.applied(6)
    assert world.answers == []
    world.queue.applied(8)
    assert world.answers == [None]


def test_reads_by_lease_and_by_round_do_not_wait_for_each_other() -> None:
    world = World()
    world.read()
    world.queue.flush()
    world.read(is_lease=True)
    assert world.queue.flush()
    assert world.asked == [(50, False), (51, True)]
    world.confirm(51, 1, applied_index=1)
    assert world.answers == [None]


def test_refused_reads_ask_again_under_a_new_id() -> None:
    """An answer to the old question, come late, must not count for the new one (etcd#20418)."""
    world = World()
    world.read()
    world.queue.flush()
    world.queue.refused([50, 999])
    world.queue.retry()
    assert world.asked == [(50, False), (51, False)]
    world.confirm(50, 7, applied_index=7)
    assert world.answers == []
    world.confirm(51, 7, applied_index=7)
    assert world.answers == [None]


def test_whatever_stage_a_read_is_in_it_ends_in_time() -> None:
    world = World()
    world.read()
    world.queue.flush()
    world.confirm(50, 99, applied_index=1)  # waits for the state
    world.read()
    world.queue.flush()  # waits for the core
    world.read()  # waits for the next round
    world.now_s = TIMEOUT_S - 0.001
    world.queue.retry()
    assert world.answers == []
    world.now_s = TIMEOUT_S
    world.queue.retry()
    assert [type(answer) for answer in world.answers] == [ReadTimeout] * 3
    assert world.queue.pending_count == 0
    world.queue.applied(100)
    world.confirm(51, 1, applied_index=100)
    assert len(world.answers) == 3


def test_more_than_may_wait_is_refused_and_what_waits_is_not_touched() -> None:
    world = World(pending_max_count=3)
    world.read(2)
    world.queue.flush()
    world.read(2)
    assert [type(answer) for answer in world.answers] == [Overloaded]
    assert world.queue.pending_count == 3
    world.confirm(50, 1, applied_index=1)
    world.read()
    assert world.queue.pending_count == 2
    assert len(world.answers) == 3


def test_closing_ends_every_read_once_and_takes_no_more() -> None:
    world = World()
    world.read()
    world.queue.flush()
    world.confirm(50, 99, applied_index=1)
    world.read()
    world.queue.flush()
    world.read()
    world.queue.close()
    world.queue.close()
    world.read()
    assert [type(answer) for answer in world.answers] == [ShuttingDown] * 4
    assert world.queue.pending_count == 0


def test_a_read_may_be_followed_by_another_from_within_its_answer() -> None:
    """A client on a kept connection asks again as soon as it is answered."""
    world = World()
    again: list[Any] = []

    def ask_again(answer: Any) -> None:
        world.answers.append(answer)
        world.queue.submit(again.append)

    world.queue.submit(ask_again)
    world.queue.flush()
    world.confirm(50, 1, applied_index=1)
    assert (world.answers, again) == ([None], [])
    world.queue.flush()
    world.confirm(51, 1, applied_index=1)
    assert again == [None]


@pytest.mark.parametrize("through", ["node1", "node2"])
def test_a_linearizable_read_sees_every_write_that_was_answered_before_it(tmp_path: Path, through: str) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        for i in range(30):
            await put(node1, "k", str(i))
            assert await get(cluster.nodes[through], "k", Consistency.LINEARIZABLE) == str(i)

    run(tmp_path, story)


def test_a_read_that_finds_no_leader_waits_for_one(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form("node1", "node2", "node3")
        await put(node1, "k", "1")
        reading = asyncio.gather(*(get(node2, "k") for _ in range(10)))
        await node1.transfer_leadership("node3")
        assert await reading == ["1"] * 10
        await until(lambda: node3.replica.is_leader, "node3 leads")

    run(tmp_path, story)


def test_a_node_without_a_majority_answers_no_linearizable_read(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2", request_timeout_ms=500)
        await put(node1, "k", "1")
        cluster.nodes["node2"].replica.is_closed = True
        with pytest.raises(ReadTimeout):
            await get(node1, "k")
        cluster.nodes["node2"].replica.is_closed = False
        assert node1.replica.reads.pending_count <= 1  # the gate's own question, at most

    run(tmp_path, story)
