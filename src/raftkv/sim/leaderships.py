"""Leaders that should have stepped down, terms that nobody campaigned for, leaders that followers imagine.

Safety never needs a leader to step down; clients do. One that reaches no majority (check-quorum, Thesis §6.2), or whose
own disk stands still (consul#22064), has to end within a few election timeouts.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from raftkv.sim.leases import broken_lease
from raftkv.types import Configuration, Member, MemberId, Role

if TYPE_CHECKING:
    from raftkv.raft import RaftState, RequestVoteReply
    from raftkv.sim.checks import Checks
    from raftkv.sim.facts import Facts
    from raftkv.sim.node import SimNode

LOOK_EVERY_S = 0.1
SILENCE_S = 3.0
"""Check-quorum looks once an election timeout (1.2 s), at what was heard since its last look."""
LOOK_MAX_COUNT = 30
"""Looks in a row, each in a process that runs: another 3 s at least."""


@dataclasses.dataclass
class _Watched:
    """One process."""

    life: int
    heard_s: dict[MemberId, float] = dataclasses.field(default_factory=dict)
    looked_s: float = 0.0
    lonely_count: int = 0
    stalled_ticket: int = 0
    stalled_count: int = 0
    removed_count: int = 0


class Leaderships:
    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._watched: dict[str, _Watched] = {}

    def _of(self, node: SimNode) -> _Watched:
        watched = self._watched.get(node.node_id)
        if watched is None or watched.life != node.life:
            watched = self._watched[node.node_id] = _Watched(node.life)
        return watched

    def heard(self, node: SimNode, sender: MemberId) -> None:
        self._of(node).heard_s[sender] = node.world.now_s

    def new_term(self, node: SimNode, facts: Facts, term: int, role: Role) -> None:
        """A term begins with a campaign; a pre-vote begins none (Thesis §9.6)."""
        if role in (Role.CANDIDATE, Role.LEADER):
            facts.campaigns.add(term)
        else:
            self._checks.must(term in facts.campaigns, f"{node.node_id} is in term {term}, which nobody campaigned for")

    def leader_known(self, node: SimNode, facts: Facts, state: RaftState) -> None:
        leader = facts.leader_of_term.get(state.current_term)
        self._checks.must(
            state.leader == leader,
            f"{node.node_id} follows {state.leader} in term {state.current_term}, led by {leader}",
        )

    def vote_given(self, node: SimNode, vote: RequestVoteReply) -> None:
        """Only to a log at least as up to date as the voter's own (Raft §5.4.1)."""
        candidate = node.cluster.network.node_of(vote.recipient)
        if candidate is None or not candidate.is_running or candidate.is_exchanging:
            return
        theirs, own = candidate.replica.raft._state, node.replica.raft._state.log
        if theirs.current_term == vote.term > own.last_term:
            ends = (theirs.log.last_term, theirs.log.last_index), (own.last_term, own.last_index)
            self._checks.must(
                ends[0] >= ends[1],
                f"{node.node_id} votes for {candidate.node_id}, whose log ends at (term, index) {ends[0]}, its own at "
                f"{ends[1]}",
            )

    def elected(self, node: SimNode, configuration: Configuration, term: int) -> None:
        """Durable votes of a majority of each set of voters (Raft §5.2, §6)."""
        member_id, on_disk = node.member.member_id, self._checks.on_disk
        own = node.replica.log.wal.hard_state
        for voters in (configuration.voters, configuration.voters_outgoing):
            votes = sum(
                voter.member_id in on_disk and on_disk[voter.member_id].vote_of.get(term) == member_id
                for voter in voters
                if voter.member_id != member_id
            )
            if any(voter.member_id == member_id for voter in voters):
                votes += own.current_term == term and own.voted_for == member_id
            self._checks.must(
                not voters or votes > len(voters) // 2,
                f"{node.node_id} leads term {term} by {votes} votes of {len(voters)} voters",
            )

    def look(self, node: SimNode, state: RaftState) -> None:
        """After a callback, at most once in `LOOK_EVERY_S`."""
        watched, now_s = self._of(node), node.world.now_s
        if now_s - watched.looked_s < LOOK_EVERY_S:
            return
        watched.looked_s = now_s
        problem = broken_lease(node.cluster.nodes, node.cluster_id)
        self._checks.must(not problem, f"lease: {problem}")
        ticket = state.log.oldest_unpersisted_ticket
        if state.role is not Role.LEADER:
            watched.lonely_count = watched.stalled_count = watched.removed_count = 0
            return
        self._check_matches(node, state)
        is_stalled = ticket != 0 and ticket == watched.stalled_ticket
        watched.stalled_count = watched.stalled_count + 1 if is_stalled else 0
        watched.stalled_ticket = ticket
        configuration = node.replica.raft.configuration
        silent = any(
            voters and self._silence_s(node, watched, voters) > SILENCE_S
            for voters in (configuration.voters, configuration.voters_outgoing)
        )
        watched.lonely_count = watched.lonely_count + 1 if silent else 0
        is_out = not configuration.is_joint and not configuration.is_voter(node.member.member_id)
        is_out = is_out and node.replica.raft.configuration_index <= state.commit_index
        watched.removed_count = watched.removed_count + 1 if is_out else 0
        name = f"liveness: {node.node_id} goes on leading term {state.current_term}"
        self._checks.must(watched.lonely_count < LOOK_MAX_COUNT, f"{name}, though it hears no majority")
        self._checks.must(watched.stalled_count < LOOK_MAX_COUNT + 10, f"{name}, though its disk stands still")
        self._checks.must(watched.removed_count < 3, f"{name}, though it is no voter any more")

    def _check_matches(self, node: SimNode, state: RaftState) -> None:
        """What a leader counts on is on the disk of the member that it counts (Raft figure 2, `matchIndex`)."""
        for peer in state.leading.peers.values() if state.leading is not None else ():
            index, holder = peer.match_index, node.cluster.network.node_of(peer.member_id)
            if holder is None or not holder.is_running or holder.is_exchanging or index <= state.log.base_index:
                continue
            wal = holder.replica.log.wal
            is_there = index <= wal.base.last_index or (
                index <= wal.last_index and wal.term(index) == state.log.term(index)
            )
            self._checks.must(is_there, f"{node.node_id} counts on {holder.node_id} up to {index}, which is not there")

    @staticmethod
    def _silence_s(node: SimNode, watched: _Watched, voters: tuple[Member, ...]) -> float:
        """Since when it has not heard a majority of `voters`."""
        now_s = node.world.now_s
        silences = sorted(
            0.0 if voter.member_id == node.member.member_id else now_s - watched.heard_s.get(voter.member_id, 0.0)
            for voter in voters
        )
        return silences[len(silences) // 2]
