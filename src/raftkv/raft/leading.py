"""What only a leader has: made when an election is won, thrown away when the role ends (Raft figure 2).

Being one object is the point: nothing of an earlier term can leak into the next one, because there is no
field to forget to clear.
"""

from __future__ import annotations

from collections import deque

from raftkv.raft.progress import Progress
from raftkv.types import NOBODY, MemberId


class ReadRound:
    """Reads that one confirmation of leadership answers (Thesis §6.4)."""

    __slots__ = ("number", "read_index", "requests", "sent_tick")

    def __init__(self, number: int, sent_tick: int, read_index: int, requests: list[tuple[MemberId, int]]) -> None:
        self.number = number
        self.sent_tick = sent_tick
        self.read_index = read_index
        self.requests = requests


class Leading:
    """Volatile state of the leader of one term."""

    __slots__ = (
        "announced_index",
        "gathered_reads",
        "has_handed_over",
        "heartbeat_elapsed",
        "lease_until",
        "peers",
        "pending_read_count",
        "proposals",
        "quorum_elapsed",
        "read_round",
        "rounds",
        "stalled_ticket",
        "term_start_index",
        "transfer_deadline",
        "transfer_is_sent",
        "transfer_target",
        "uncommitted_bytes",
    )

    def __init__(self, term_start_index: int) -> None:
        self.term_start_index = term_start_index
        """The no-op of this term. An index is of this term exactly when it is not below."""
        self.peers: dict[MemberId, Progress] = {}
        """Everyone replicated to, in configuration order; never this server itself."""
        self.announced_index = 0
        """Followers with nothing in flight are told of commits up to here by a message of its own."""
        self.heartbeat_elapsed = 0
        self.quorum_elapsed = 0
        self.stalled_ticket = 0
        """The oldest step that was not durable at the last look of check-quorum; 0 for none."""
        self.proposals: deque[tuple[int, int]] = deque()
        """(index, bytes) of each uncommitted proposal."""
        self.uncommitted_bytes = 0
        self.read_round = 0
        """The newest round that was sent; each number is used once in a term."""
        self.rounds: deque[ReadRound] = deque()
        self.gathered_reads: list[tuple[MemberId, int]] = []
        """(asker, request id) waiting for a round to be opened."""
        self.pending_read_count = 0
        self.lease_until = 0
        self.transfer_target: MemberId = NOBODY
        self.transfer_deadline = 0
        self.transfer_is_sent = False
        self.has_handed_over = False
        """A TimeoutNow is out. It may arrive arbitrarily late and start an election that ignores leases, so
        this leader gives no lease reads for the rest of its term, even when the transfer is aborted."""
