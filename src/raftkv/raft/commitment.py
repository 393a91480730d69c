"""When entries are committed, and what follows from it (Raft §5.3, §5.4.2, §6).

The leader commits the largest index of its *own term* that a majority of every half holds durably; older entries are
committed with it, never by counting (Raft figure 8). Itself it counts only up to what its own disk reported
(Thesis §10.2.1), and not at all when it is not a voter.

Following a commit, in this order: a joint configuration is left; a leader that is no longer a voter tells everybody and
steps down; a handed-over leadership goes on when its heir has everything.
"""

from __future__ import annotations

from raftkv.raft import election, membership, replication, transfer
from raftkv.raft.leading import Leading
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY


def tick_leader(state: RaftState, leading: Leading, elapsed_ticks: int) -> None:
    transfer.tick(state, leading)
    membership.drop_overdue_farewells(state, leading)
    leading.quorum_elapsed += elapsed_ticks
    if leading.quorum_elapsed >= state.settings.election_timeout_ticks:
        leading.quorum_elapsed = 0
        if election.maybe_step_down(state, leading):
            return
    replication.tick(state, leading, elapsed_ticks)


def maybe_commit(state: RaftState, leading: Leading) -> None:
    """Called when some voter's durable log grew, or the configuration changed."""
    index = state.voters.agreed_position(
        lambda member_id: (
            state.log.persisted_index if member_id == state.member_id else leading.peers[member_id].match_index
        )
    )
    if index <= state.commit_index or index < leading.term_start_index:
        return
    is_news = state.commit_index < max(leading.term_start_index, state.configuration_index)
    if is_news or state.settings.announces_commits:
        leading.announced_index = index
    state.commit_index = index
    state.needs_flush = True
    proposals = leading.proposals
    while proposals and proposals[0][0] <= index:
        leading.uncommitted_bytes -= proposals.popleft()[1]
    membership.maybe_leave_joint(state, leading)
    maybe_resign(state, leading)


def maybe_resign(state: RaftState, leading: Leading) -> None:
    """A leader outside the committed configuration steps down (Raft §6); it will not campaign again.

    The best of those that stay is told to campaign at once, so that the cluster does not wait an election timeout.
    """
    if state.is_voter or state.configuration.is_joint or state.configuration_index > state.commit_index:
        return
    transfer.send_last_words(state, leading)
    election.become_follower(state, state.current_term, NOBODY, "the cluster goes on without it")
