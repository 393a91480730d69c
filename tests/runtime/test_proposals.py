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


def proposals_on(log: Log, window_count: int = 2) -> Proposals:
    def encode(commands: list[Any]) -> bytes:
        return ",".join(commands).encode()

    return Proposals(
        log, encode, lambda: None, lambda: 0.0, timeout_s=1.0, pending_max_bytes=1 << 20, window_count=window_count
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


def test_a_command_never_joins_a_forwarded_batch_whose_answer_is_one() -> None:
    """It would make the batch's results too many for the follower and leave the command's own client unanswered."""
    log = Log()
    proposals = proposals_on(log)
    forwarded: list[Any] = []
    own: list[Any] = []
    proposals.submit_batch(["f1", "f2"], 2, forwarded.append)
    proposals.submit("a", 1, own.append)
    proposals.submit("b", 1, own.append)
    proposals.flush()
    assert log.batches == [b"f1,f2", b"a,b"]
    proposals.applied(entry(1), ["F1", "F2"])
    proposals.applied(entry(2), ["A", "B"])
    assert forwarded == [(1, ["F1", "F2"])]
    assert own == ["A", "B"]
    assert proposals.pending_bytes == 0
