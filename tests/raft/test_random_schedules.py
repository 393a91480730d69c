"""A few hundred seeded random schedules; `schedules.py` has the adversary, and replays one seed."""

from __future__ import annotations

import collections

import pytest

from raftkv.types import EntryKind
from tests.raft.schedules import EVENT_COUNT, Schedule

BLOCK_SIZE = 50
BLOCKS = range(5)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"seeds {block * BLOCK_SIZE} and on")
def test_random_schedules(block: int) -> None:
    """Raft figure 3 at every moment, and rest once the faults end."""
    for seed in range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE):
        try:
            Schedule(seed).run(EVENT_COUNT)
        except Exception as error:
            error.add_note(f"replay with: python -m tests.raft.schedules {seed}")
            raise


def test_the_schedules_reach_what_they_are_for() -> None:
    """A search that never gets anywhere finds nothing: across some seeds each interesting thing has happened, often."""
    seen: collections.Counter[str] = collections.Counter()
    for seed in range(40):
        schedule = Schedule(seed)
        schedule.run()
        checks = schedule.cluster.checks
        seen["terms with a leader"] += len(checks.leader_of_term)
        seen["entries"] += len(checks.applied)
        seen["configurations"] += sum(entry.kind is EntryKind.CONFIGURATION for entry in checks.applied.values())
        seen["entries that lost"] += len(checks.predecessor) - len({index for index, _ in checks.predecessor})
        for server in schedule.cluster.servers.values():
            seen["snapshots installed"] += sum(effects.snapshot is not None for effects in server.handed_out)
    assert seen["terms with a leader"] > 60
    assert seen["entries"] > 400
    assert seen["configurations"] > 50
    assert seen["entries that lost"] > 5
    assert seen["snapshots installed"] > 5


def test_the_same_seed_is_the_same_schedule() -> None:
    """Or no failure could be replayed."""
    events: list[list[str]] = [[], []]
    for one in events:
        Schedule(7, one.append).run()
    assert events[0] == events[1]
    assert len(events[0]) > EVENT_COUNT // 4
