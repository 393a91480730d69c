"""When committed entries reach the state: at once, deferred, or held; always in their order, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from raftkv.runtime.applying import APPLY_MAX_BYTES, DEFER_S, Applying
from raftkv.runtime.replica import ReplicaHooks
from raftkv.types import Entry, EntryKind, HardState, SnapshotMetadata
from tests.runtime.nodes import Cluster, put, run, until


class Timer:
    def __init__(self, when_due: Callable[[], None]) -> None:
        self.when_due = when_due
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class World:
    def __init__(self) -> None:
        self.is_awaited = False
        self.batches: list[list[int]] = []
        self.timers: list[Timer] = []
        self.error: Exception | None = None
        self.applying = Applying(self._apply, lambda: self.is_awaited, self._due, self._call_later)

    def _apply(self, entries: list[Entry]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append([entry.index for entry in entries])

    def _due(self) -> None:
        self.applying.apply_now()

    def _call_later(self, delay_s: float, when_due: Callable[[], None]) -> asyncio.TimerHandle:
        assert delay_s == DEFER_S
        timer = Timer(when_due)
        self.timers.append(timer)
        return cast("asyncio.TimerHandle", timer)

    def take(self, *indexes: int, kind: EntryKind = EntryKind.COMMANDS, size_bytes: int = 1) -> None:
        self.applying.take([Entry(index, 1, kind, bytes(size_bytes)) for index in indexes])

    def timers_left(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.is_cancelled]


def test_what_somebody_waits_for_is_applied_at_once() -> None:
    world = World()
    world.is_awaited = True
    world.take(1, 2)
    world.take(3)
    assert world.batches == [[1, 2], [3]]
    assert world.timers == []


def test_what_nobody_waits_for_is_applied_together_when_the_time_is_over() -> None:
    world = World()
    for index in (1, 2, 3):
        world.take(index)
    assert world.batches == []
    (timer,) = world.timers_left()
    timer.when_due()
    assert world.batches == [[1, 2, 3]]
    world.take(4)
    assert len(world.timers_left()) == 1


def test_who_comes_to_wait_gets_all_that_was_deferred() -> None:
    world = World()
    world.take(1)
    world.applying.apply_now()
    assert world.batches == [[1]]
    assert world.timers_left() == []
    world.take(2)
    world.is_awaited = True
    world.take(3)
    assert world.batches == [[1], [2, 3]]
    assert world.timers_left() == []


def test_a_change_of_the_configuration_is_waited_for() -> None:
    world = World()
    world.take(1)
    world.take(2, kind=EntryKind.CONFIGURATION)
    assert world.batches == [[1, 2]]


def test_no_more_is_deferred_than_one_batch_may_hold() -> None:
    world = World()
    world.take(1, size_bytes=APPLY_MAX_BYTES - 1)
    assert world.batches == []
    world.take(2)
    assert world.batches == [[1, 2]]


def test_while_it_is_held_nothing_is_applied_and_afterwards_all_in_bounded_batches() -> None:
    world = World()
    world.is_awaited = True
    world.applying.hold()
    for index in range(1, 6):
        world.take(index, size_bytes=APPLY_MAX_BYTES // 2)
    world.applying.apply_now()
    assert world.batches == []
    world.applying.resume()
    assert world.batches == [[1, 2], [3, 4], [5]]
    world.take(6)
    assert world.batches[-1] == [6]


def test_behind_an_entry_that_cannot_be_applied_none_is_tried() -> None:
    world = World()
    world.applying.hold()
    world.take(1, 2, size_bytes=APPLY_MAX_BYTES)
    world.error = OSError("the disk is gone")
    with pytest.raises(OSError, match="the disk is gone"):
        world.applying.resume()
    world.error = None
    world.applying.apply_now()
    assert world.batches == []


def test_closed_it_lets_go_of_what_waits() -> None:
    world = World()
    world.take(1)
    world.applying.close()
    assert world.timers_left() == []
    world.applying.apply_now()
    assert world.batches == []


def test_what_was_deferred_goes_to_the_state_that_it_was_for_before_a_snapshot_takes_its_place(tmp_path: Path) -> None:
    """Applied to the new state, which is further, it would stop the node (Raft §7)."""

    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        replica, installed = node2.replica, []
        await until(lambda: replica.gate.is_confirmed, "nobody waits")
        replica.applying._call_later = lambda _delay, _due: cast("asyncio.TimerHandle", Timer(lambda: None))
        await put(node1, "k", "1")
        await until(lambda: bool(replica.applying._waiting), "the write is deferred")
        before = replica.machine.last_applied

        class Hooks:
            def install_snapshot(self, snapshot: SnapshotMetadata, _hard_state: HardState | None) -> None:
                installed.append((snapshot.last_index, replica.machine.last_applied))

        really, replica._hooks = replica._hooks, cast("ReplicaHooks", Hooks())
        replica.install_snapshot(SnapshotMetadata(1000, 1), None)
        replica._hooks = really
        assert installed == [(1000, replica.machine.last_applied)]
        assert replica.machine.last_applied > before

    run(tmp_path, story)
