"""What the leader knows of one other server's log (Raft figure 2, `nextIndex` and `matchIndex`).

Three states, as a follower can be in only one of them:

- probe: it is not known where the logs agree. One message at a time, the next one after an answer or at a
  heartbeat.
- replicate: `match_index` is known, so entries are sent without waiting (pipelined, Thesis §10.2.2),
  within a window of messages and bytes. `next_index` runs ahead of what was acknowledged.
- snapshot: it needs entries that the leader's log no longer has. Nothing but heartbeats is sent until the
  snapshot arrived or failed.

Invariant: match_index < next_index; match_index never goes back within a leader's term.
"""

from __future__ import annotations

import enum
from collections import deque

from raftkv.types import MemberId


class ProgressState(enum.StrEnum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One follower, learner, or removed member that is still to be told so."""

    __slots__ = (
        "commit_sent",
        "farewell_deadline",
        "has_heartbeat_due",
        "heard_tick",
        "inflight",
        "inflight_bytes",
        "is_learner",
        "is_paused",
        "is_recently_active",
        "is_removed",
        "match_index",
        "member_id",
        "next_index",
        "promotion_round_start",
        "promotion_target",
        "round_acknowledged",
        "round_sent",
        "snapshot_index",
        "state",
    )

    def __init__(self, member_id: MemberId, next_index: int) -> None:
        self.member_id = member_id
        self.state = ProgressState.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.is_paused = False
        """Probe only: a probe is out, wait for its answer or for the next heartbeat."""
        self.inflight: deque[tuple[int, int]] = deque()
        """Replicate only: (last index, bytes) of each message with entries that is not acknowledged."""
        self.inflight_bytes = 0
        self.snapshot_index = 0
        self.has_heartbeat_due = False
        self.commit_sent = 0
        self.round_sent = 0
        self.round_acknowledged = 0
        self.is_recently_active = False
        """Has answered in this term since the last look of check-quorum."""
        self.heard_tick = 0
        self.is_learner = False
        self.promotion_target = 0
        self.promotion_round_start = 0
        self.is_removed = False
        """In no configuration any more; kept only until it knows (see membership)."""
        self.farewell_deadline = 0

    def become_probe(self, next_index: int) -> None:
        self._leave_state()
        self.state = ProgressState.PROBE
        self.next_index = max(next_index, self.match_index + 1)

    def become_replicate(self, agreed_index: int = 0) -> None:
        """`agreed_index`: up to there it has the same log, though it may still be writing it."""
        self._leave_state()
        self.state = ProgressState.REPLICATE
        self.next_index = max(agreed_index, self.match_index) + 1

    def become_snapshot(self, snapshot_index: int) -> None:
        self._leave_state()
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = snapshot_index

    def _leave_state(self) -> None:
        self.is_paused = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot_index = 0

    def note_entries_sent(self, last_index: int, size_bytes: int) -> None:
        """Replicate only."""
        self.next_index = last_index + 1
        self.inflight.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes

    def note_match(self, match_index: int) -> bool:
        """True when it is news. Old and reordered answers change nothing."""
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        inflight = self.inflight
        while inflight and inflight[0][0] <= match_index:
            self.inflight_bytes -= inflight.popleft()[1]
        if self.next_index <= match_index:
            self.next_index = match_index + 1
        return True
