"""A lease and the promises that it rests on, compared at one moment (Thesis §6.4.1).

A stale lease read needs a new leader, a write there and a read here within a few milliseconds. But the lease is wrong
before that: from the moment on in which so many members are free to vote that they could elect another leader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.types import NOBODY, Role

if TYPE_CHECKING:
    from raftkv.raft import RaftState
    from raftkv.runtime import Replica
    from raftkv.sim.node import SimNode


def broken_lease(cluster_nodes: list[SimNode], cluster_id: int) -> str:
    """What is wrong with the lease of whoever has one; empty for nothing."""
    running = [node for node in cluster_nodes if node.is_awake and node.cluster_id == cluster_id]
    for leader in running:
        state = leader.replica.raft._state
        if state.role is not Role.LEADER or not _has_lease(leader.replica, state):
            continue
        lost = {node.member.member_id for node in running if node is not leader and _is_lost(node, state)}
        for voters in (state.configuration.voters, state.configuration.voters_outgoing):
            if voters and sum(voter.member_id in lost for voter in voters) > len(voters) // 2:
                return f"{leader.node_id} has a lease in term {state.current_term}, and {len(lost)} others may vote"
    return ""


def _has_lease(replica: Replica, state: RaftState) -> bool:
    """As a read would find it now: what has passed since the last tick is counted first."""
    leading = state.leading
    return (
        leading is not None
        and state.now_ticks + _unseen_ticks(replica) + 1 < leading.lease_until
        and leading.transfer_target == NOBODY
        and not leading.has_handed_over
        and state.commit_index >= leading.term_start_index
    )


def _is_lost(node: SimNode, leader: RaftState) -> bool:
    """It follows another one, or would vote for one."""
    state = node.replica.raft._state
    if state.current_term > leader.current_term and state.leader not in (NOBODY, leader.member_id):
        return True
    is_holding = state.now_ticks < state.vote_hold_until
    hears_leader = state.leader != NOBODY and state.election_elapsed < state.settings.election_timeout_ticks
    return not is_holding and not hears_leader


def _unseen_ticks(replica: Replica) -> int:
    clock = replica.clock
    return int((clock.now() - clock._last_s) / clock._interval_s)
