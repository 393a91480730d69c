"""When local reads are served after a start or a pause: the leader's word counts if it was asked for afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftkv.errors import ReadTimeout
from raftkv.runtime.clients.gate import GateState, ReadGate
from tests.runtime.nodes import Cluster, put, run, until

WAIT_S = 5.0


class World:
    """A gate, its clock, and the questions that it asks."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.questions: list[Callable[[Any], None]] = []
        self.changes: list[GateState] = []
        self.gate = ReadGate(
            self.questions.append, lambda: self.now_s, WAIT_S, lambda: self.changes.append(self.gate.state)
        )

    def state(self) -> GateState:
        return self.gate.state

    def tick(self, seconds: float = 0.025) -> None:
        self.now_s += seconds
        self.gate.tick()


def test_it_is_closed_until_the_leader_has_answered() -> None:
    world = World()
    assert world.state() is GateState.CLOSED
    world.tick()
    assert world.state() is GateState.CLOSED
    world.questions[0](None)
    assert world.state() is GateState.OPEN
    assert world.gate.is_confirmed


def test_one_question_at_a_time() -> None:
    world = World()
    for _ in range(10):
        world.tick()
    assert len(world.questions) == 1
    world.questions[0](ReadTimeout("no leader"))
    assert world.state() is GateState.CLOSED
    for _ in range(10):
        world.tick()
    assert len(world.questions) == 2


def test_nothing_is_asked_while_it_is_open() -> None:
    world = World()
    world.tick()
    world.questions[0](None)
    world.tick()
    assert len(world.questions) == 1


def test_without_a_leader_it_opens_marked_when_the_wait_is_over_and_not_before() -> None:
    world = World()
    world.tick(WAIT_S - 0.001)
    assert world.state() is GateState.CLOSED
    world.tick(0.001)
    assert world.state() is GateState.MARKED
    assert not world.gate.is_confirmed


def test_the_mark_goes_when_a_leader_has_answered() -> None:
    world = World()
    world.tick(WAIT_S)
    world.questions[0](ReadTimeout("no leader"))
    world.tick()
    world.questions[1](None)
    assert world.state() is GateState.OPEN


def test_an_answer_to_a_question_from_before_the_pause_does_not_open_it() -> None:
    """1. a read is asked; 2. the process is paused and the state grows old; 3. the old answer arrives."""
    world = World()
    world.tick()
    world.gate.close()
    world.questions[0](None)
    assert world.state() is GateState.CLOSED
    world.tick()
    world.questions[1](None)
    assert world.state() is GateState.OPEN


def test_the_wait_begins_anew_when_it_is_closed_again() -> None:
    world = World()
    world.tick()
    world.questions[0](None)
    world.tick(60.0)
    world.gate.close()
    world.tick(WAIT_S - 0.001)
    assert world.state() is GateState.CLOSED
    world.tick(0.001)
    assert world.state() is GateState.MARKED


def test_what_can_be_confirmed_no_more_is_marked_and_not_asked_for() -> None:
    world = World()
    world.tick()
    world.questions[0](None)
    for _ in range(3):
        world.gate.tick(can_be_confirmed=False)
        assert world.state() is GateState.MARKED
    assert len(world.questions) == 1
    world.tick()
    world.questions[1](None)
    assert world.state() is GateState.OPEN


def test_an_answer_that_comes_when_nothing_can_be_confirmed_is_too_late() -> None:
    world = World()
    world.tick()
    world.gate.tick(can_be_confirmed=False)
    world.questions[0](None)
    assert world.state() is GateState.CLOSED
    world.now_s += WAIT_S
    world.gate.tick(can_be_confirmed=False)
    assert world.state() is GateState.MARKED


def test_every_change_is_told_once() -> None:
    world = World()
    world.gate.close()
    assert world.changes == []
    world.tick(WAIT_S)
    world.tick()
    world.questions[0](None)
    world.gate.close()
    assert world.changes == [GateState.MARKED, GateState.OPEN, GateState.CLOSED]


def test_answers_of_a_lone_half_are_marked_and_the_mark_goes_when_the_other_half_is_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2", start_read_wait_ms=200)
        await put(node1, "k", "1")
        await cluster.stop("node2")
        await cluster.stop("node1")
        node1 = await cluster.start("node1")
        assert not node1.position().is_marked_stale
        await until(lambda: node1.position().is_marked_stale, "served, and marked")
        assert node1.local_value(b"k") == b"1"
        assert not node1.is_ready
        await cluster.start("node2")
        await until(lambda: node1.is_ready, "the leader has answered")
        assert not node1.position().is_marked_stale
        assert node1.local_value(b"k") == b"1"

    run(tmp_path, story)
