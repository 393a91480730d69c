"""Group commit: who shares a batch with whom, and that everybody is answered once."""

from __future__ import annotations

from typing import Any

from raftkv.runtime.proposals import Proposals
from raftkv.types import Entry, EntryKind


class Log:
    """Takes batches at ascending indexes, all of term 1."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []

    def propose(self, data: bytes) -> tuple[int, int]:
        self.batches.append(data)
        return len(self.batches), 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def proposals_on(log: Log, clock: Clock | None = None, batch_max_count: int = 1024) -> Proposals:
    def encode(commands: list[Any]) -> bytes:
        return ",".join(commands).encode()

    return Proposals(
        log,
        encode,
        lambda: None,
        clock or Clock(),
        timeout_s=1000.0,
        pending_max_bytes=1 << 20,
        window_max_count=3,
        batch_max_count=batch_max_count,
    )


def entry(index: int) -> Entry:
    return Entry(index, 1, EntryKind.COMMANDS)


def test_commands_that_come_together_share_an_entry() -> None:
    log = Log()
    proposals = proposals_on(log)
    told: list[Any] = []
    for command in ("a", "b", "c"):
        proposals.submit(command, 1, told.append)
    proposals.flush()
    assert log.batches == [b"a,b,c"]
    proposals.applied(entry(1), ["A", "B", "C"])
    assert told == ["A", "B", "C"]
    assert proposals.pending_bytes == 0


def test_what_arrives_while_a_batch_is_under_way_becomes_the_next_one() -> None:
    log = Log()
    proposals = proposals_on(log)
    told: list[Any] = []
    proposals.submit("a", 1, told.append)
    proposals.flush()
    for command in ("b", "c"):
        proposals.submit(command, 1, told.append)
        proposals.flush()
    assert log.batches == [b"a"]
    proposals.applied(entry(1), ["A"])
    proposals.flush()
    assert log.batches == [b"a", b"b,c"]


def test_slow_batches_overlap_and_quick_ones_do_not() -> None:
    log = Log()
    clock = Clock()
    proposals = proposals_on(log, clock, batch_max_count=1)
    applied = 0

    def apply_next(after_s: float) -> None:
        nonlocal applied
        clock.now_s += after_s
        applied += 1
        proposals.applied(entry(applied), ["X"])
        proposals.flush()

    def most_under_way_when_each_takes(latency_s: float) -> int:
        for _ in range(40):  # until the mean has settled
            proposals.submit("x", 1, lambda _: None)
            proposals.flush()
            apply_next(latency_s)
        for _ in range(6):
            proposals.submit("x", 1, lambda _: None)
        proposals.flush()
        under_way = len(log.batches) - applied
        while applied < len(log.batches):
            apply_next(0.0)
        return under_way

    assert most_under_way_when_each_takes(0.002) == 1
    assert most_under_way_when_each_takes(0.015) == 2
    assert most_under_way_when_each_takes(0.4) == 3, "never more than window_max_count"
    assert most_under_way_when_each_takes(0.002) == 1
