"""Ticks from a clock, whatever the timer does; and what a pause of the process must not make a node believe."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from raftkv.errors import NotReady, RaftkvError
from raftkv.raft import AppendEntries, encode_message
from raftkv.runtime import Node
from raftkv.runtime.clock import TickClock
from raftkv.runtime.limits import raft_settings
from raftkv.runtime.wire import FrameKind
from raftkv.types import Consistency
from tests.runtime.nodes import Cluster, get, put, run, small_settings, until

INTERVAL_S = 0.025
PAUSE_S = 0.4


class World:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []
        self.clock = TickClock(INTERVAL_S, PAUSE_S, self.pauses.append, lambda: self.now_s)


def test_ticks_are_whole_intervals_and_no_time_is_lost() -> None:
    world = World()
    counts = []
    for _ in range(100):
        world.now_s += 0.3 * INTERVAL_S
        counts.append(world.clock.advance())
    assert set(counts) <= {0, 1}
    assert sum(counts) in {29, 30}


def test_a_late_timer_gives_all_the_ticks_that_it_missed() -> None:
    world = World()
    world.now_s += 10.5 * INTERVAL_S
    assert world.clock.advance() == 10
    assert world.clock.advance() == 0
    world.now_s += 0.6 * INTERVAL_S
    assert world.clock.advance() == 1


def test_a_pause_is_noticed_before_the_first_tick_after_it() -> None:
    """Requests that lay in the sockets may be served before the timer fires."""
    world = World()
    world.now_s += PAUSE_S
    assert not world.clock.is_paused()
    world.now_s += 0.001
    assert world.clock.is_paused()
    assert world.clock.advance() == int((PAUSE_S + 0.001) / INTERVAL_S)
    assert not world.clock.is_paused()
    assert [round(seconds, 3) for seconds in world.pauses] == [0.401]


def test_lateness_of_the_timer_is_counted_and_the_longest_kept() -> None:
    world = World()
    for lateness_s in (0.0, 0.049, 0.051, 0.3, 0.06, -0.01):
        world.clock.observe_lateness(lateness_s)
    assert world.clock.stall_count == 3
    assert world.clock.longest_stall_s == 0.3


def test_a_lease_bears_clocks_that_run_four_percent_apart(tmp_path: Path) -> None:
    """As the setting `lease_reads` says, at whatever election timeout; one tick of the margin is for rounding."""
    settings = small_settings(tmp_path, "node1")
    for timeout_ms in range(150, 10_000, 25):
        knobs = raft_settings(dataclasses.replace(settings, election_timeout_ms=timeout_ms), 1)
        assert (knobs.lease_margin_ticks - 1) / knobs.election_timeout_ticks >= 0.04, timeout_ms


class Pausable:
    """The clock of one node, moved on by hand: what its process sees after SIGSTOP and SIGCONT."""

    def __init__(self, node: Node) -> None:
        clock = node.replica.clock
        self.offset_s = 0.0
        really = clock.now
        clock.now = lambda: really() + self.offset_s


def test_after_a_pause_local_reads_wait_for_the_leaders_word(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        await put(node1, "k", "1")
        await until(lambda: node2.is_ready and node2.local_value(b"k") == b"1", "node2 is level")
        paused = Pausable(node2)
        paused.offset_s = 10.0
        # At once, before any timer has fired:
        with pytest.raises(NotReady):
            node2.local_value(b"k")
        with pytest.raises(NotReady):
            await get(node2, "k", Consistency.LOCAL)
        # Nor does the first tick make it trust what it knew; only the leader's answer does, which takes a turn.
        node2.replica.tick()
        assert not node2.replica.clock.is_paused()
        with pytest.raises(NotReady):
            node2.local_value(b"k")
        await until(lambda: node2.is_ready, "the leader has answered")
        assert node2.local_value(b"k") == b"1"

    run(tmp_path, story)


def test_time_that_the_machine_slept_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux stops CLOCK_MONOTONIC while a machine is suspended."""
    clocks = {time.CLOCK_MONOTONIC: 1000.0, time.CLOCK_BOOTTIME: 5000.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    clock = TickClock(INTERVAL_S, PAUSE_S, lambda _: None)
    clocks[time.CLOCK_BOOTTIME] += 3600.0
    assert clock.is_paused()


def test_a_follower_that_was_paused_promises_its_leader_from_now_on(tmp_path: Path) -> None:
    """The leader's message may be read before the timer fires; a lease counts on the time after it."""

    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2", lease_reads=True)
        await cluster.agree()
        leader, follower = node1.replica, node2.replica
        Pausable(node2).offset_s = 10.0
        assert follower.clock.is_paused()
        last = follower.log.last_index
        heartbeat = AppendEntries(
            leader.raft.current_term, leader.own.member_id, follower.own.member_id, last, follower.log.term(last), 0, 0
        )
        follower.handle_frame(leader.own.member_id, FrameKind.RAFT, encode_message(heartbeat))
        assert not follower.clock.is_paused(), "the core knows of the pause"

    run(tmp_path, story)


def test_a_leader_that_was_paused_does_not_read_by_its_old_lease(tmp_path: Path) -> None:
    """1. it holds a lease; 2. it is paused, another one leads and takes writes; 3. it is asked before it ticks."""

    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form("node1", "node2", "node3", lease_reads=True)
        await put(node1, "k", "old")
        assert await get(node1, "k", Consistency.LEASE) == "old"
        # While it is away it hears nothing and ticks not.
        tick_handle, frames = node1._tick_handle, node1.replica.handle_frame
        assert tick_handle is not None
        tick_handle.cancel()
        node1.replica.handle_frame = lambda *_: None  # type: ignore[method-assign]
        await until(lambda: node2.replica.is_leader or node3.replica.is_leader, "another one leads")
        other = node2 if node2.replica.is_leader else node3
        await put(other, "k", "new")
        assert node1.replica.is_leader, "it does not know yet"
        answers: list[object] = []
        node1.read(b"k", Consistency.LEASE, answers.append)
        await asyncio.sleep(0)  # its turn, which a lease would answer in
        node1.replica.handle_frame = frames  # type: ignore[method-assign]
        node1._tick()
        await until(lambda: bool(answers), "answered")
        (answer,) = answers
        assert isinstance(answer, RaftkvError) or getattr(answer, "value", None) == b"new"

    run(tmp_path, story)
