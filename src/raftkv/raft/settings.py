"""The core's knobs. Times are in ticks; the driver decides what a tick is worth."""

from __future__ import annotations

import dataclasses

from raftkv.errors import SettingsError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """`member_id` is this server; the rest has defaults that suit a tick of 25 ms.

    election_timeout_ticks: least time without a leader before campaigning; the randomised timeout is drawn
        from [election_timeout_ticks, 2 * election_timeout_ticks) (Raft §5.2).
    heartbeat_ticks: less than election_timeout_ticks, else followers campaign against a healthy leader.
    lease_margin_ticks: taken off a lease for clock drift over one election timeout (Thesis §6.4.1).
    append_max_bytes: entry bytes in one AppendEntries; one entry may exceed it alone.
    inflight_max_count, inflight_max_bytes: the pipelining window a follower.
    uncommitted_max_bytes: above it `propose` raises Overloaded.
    committed_max_bytes: entry bytes in one `Effects.committed`; one entry may exceed it alone.
    announces_commits: whether a new commit index is sent at once to followers that have nothing in flight. If not,
        it travels with the next entries, the next heartbeat or an `announce_commit`, whichever comes first; what
        changes the configuration is announced at once in any case.
    tail_max_bytes: durable entries kept in memory for followers that are nearly up to date.
    """

    member_id: int
    election_timeout_ticks: int = 16
    heartbeat_ticks: int = 3
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    lease_margin_ticks: int = 2
    append_max_bytes: int = 1 << 20
    inflight_max_count: int = 64
    inflight_max_bytes: int = 16 << 20
    uncommitted_max_bytes: int = 64 << 20
    committed_max_bytes: int = 4 << 20
    tail_max_bytes: int = 8 << 20
    promote_learners: bool = True
    announces_commits: bool = True

    def __post_init__(self) -> None:
        if self.member_id <= 0:
            raise SettingsError("member_id", "must be a positive number")
        if not 0 < self.heartbeat_ticks < self.election_timeout_ticks:
            raise SettingsError("heartbeat_ticks", "must be at least 1 and below election_timeout_ticks")
        for name in ("append_max_bytes", "inflight_max_count", "inflight_max_bytes", "uncommitted_max_bytes"):
            if getattr(self, name) <= 0:
                raise SettingsError(name, "must be positive")
