"""Who is in the cluster, and how that changes (Raft §6, Thesis §4).

Every change of voters goes through a joint configuration: one mechanism for one or many members, without the
single-server rule whose first published form was unsafe (Ongaro, raft-dev 2015). A change that leaves the
voters' identities alone (learners, addresses) moves no majority and is one simple entry.

    stable ──propose──▶ joint (appended: in force) ──committed──▶ leave entry (appended: in force) ──committed──▶ stable

Rules: no change before an entry of the leader's own term is committed, nor while another change is not
committed or is joint; a configuration is in force from the moment it is appended; a leader that finds a committed
joint configuration in its log, its own or inherited, leaves it.

Learners are promoted by the leader once caught up: replication is cut in rounds, each up to where the log ended when
it began; a round that took less than an election timeout shows that the learner would hold up commitment for
no longer than an election would (Thesis §4.2.1). One at a time, and the learner must have answered just now.

A removed member is replicated to until it holds the configuration without it and was told that this is committed
(a *farewell*); then it is dropped. One that missed its farewell shows itself by asking for votes, and the leader says
farewell again. Turned down: letting it find out by itself; it can only campaign for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.errors import ConfigurationInProgress, MembershipRefused
from raftkv.raft import reads
from raftkv.raft.configurations import configuration_problem, encode_configuration
from raftkv.raft.leading import Leading
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, Configuration, Entry, EntryKind, Member, MemberId

FAREWELL_MAX_COUNT = 16
"""Removed members that are told at a time; others must ask again."""

FAREWELL_MAX_ELECTION_TIMEOUTS = 20
"""How long an unreachable removed member is tried."""


def propose_configuration(state: RaftState, voters: Sequence[Member], learners: Sequence[Member]) -> int:
    """The index of the first entry of the change; the index in force when nothing would change."""
    leading = state.require_accepting()
    require_changeable(state, leading)
    target = Configuration(tuple(voters), tuple(learners))
    problem = configuration_problem(target)
    if problem:
        raise MembershipRefused(problem)
    if target == state.configuration:
        return state.configuration_index
    return append_configuration(state, leading, first_step(state.configuration, target))


def require_changeable(state: RaftState, leading: Leading) -> None:
    if state.commit_index < leading.term_start_index:
        raise ConfigurationInProgress("this leader has not committed an entry of its own term yet, try again")
    if state.configuration.is_joint or state.configuration_index > state.commit_index:
        raise ConfigurationInProgress("another change of members is under way, try again when it is done")


def first_step(current: Configuration, target: Configuration) -> Configuration:
    """The configuration to append first: joint when the voters' identities differ."""
    before = {member.member_id for member in current.voters}
    if before == {member.member_id for member in target.voters}:
        return target
    return Configuration(
        voters=target.voters,
        learners=tuple(member for member in target.learners if member.member_id not in before),
        voters_outgoing=current.voters,
        learners_next=tuple(member for member in target.learners if member.member_id in before),
    )


def append_configuration(state: RaftState, leading: Leading, configuration: Configuration) -> int:
    index = state.log.last_index + 1
    data = encode_configuration(configuration)
    state.append((Entry(index, state.current_term, EntryKind.CONFIGURATION, data),))
    refresh_peers(state, leading)
    reads.maybe_confirm(state, leading)  # a smaller quorum may have answered already
    state.needs_flush = True
    return index


def refresh_peers(state: RaftState, leading: Leading) -> None:
    """Replicate to exactly the members in force, and to removed ones until they know it."""
    configuration = state.configuration
    known, leading.peers = leading.peers, {}
    for member_id in configuration.members():
        if member_id == state.member_id:
            continue
        peer = known.pop(member_id, None)
        if peer is None or peer.is_removed:
            peer = _new_peer(state, member_id)
        peer.is_learner = member_id not in state.voters.all
        leading.peers[member_id] = peer
    for peer in known.values():
        if not peer.is_removed:
            _begin_farewell(state, peer)
        leading.peers[peer.member_id] = peer
    target = leading.peers.get(leading.transfer_target)
    if target is None or target.is_removed or target.is_learner:
        leading.transfer_target = NOBODY


def _new_peer(state: RaftState, member_id: MemberId) -> Progress:
    """Optimistic: its log is probed from this log's end."""
    peer = Progress(member_id, state.log.last_index + 1)
    peer.promotion_target = state.log.last_index
    peer.promotion_round_start = state.now_ticks
    return peer


def maybe_leave_joint(state: RaftState, leading: Leading) -> None:
    """Once the joint configuration and an entry of this term are committed (Raft §6, figure 11)."""
    joint = state.configuration
    if not joint.is_joint or state.commit_index < max(state.configuration_index, leading.term_start_index):
        return
    append_configuration(state, leading, Configuration(joint.voters, joint.learners + joint.learners_next))


def maybe_promote(state: RaftState, leading: Leading, learner: Progress) -> None:
    """`learner` has just acknowledged something."""
    if learner.match_index < learner.promotion_target:
        return
    round_ticks = state.now_ticks - learner.promotion_round_start
    learner.promotion_target = state.log.last_index
    learner.promotion_round_start = state.now_ticks
    if (
        round_ticks >= state.settings.election_timeout_ticks
        or not state.settings.promote_learners
        or learner.state is not ProgressState.REPLICATE
        or leading.transfer_target != NOBODY
        or state.configuration.is_joint
        or state.commit_index < max(state.configuration_index, leading.term_start_index)
    ):
        return
    now = state.configuration
    promoted = tuple(member for member in now.learners if member.member_id == learner.member_id)
    rest = tuple(member for member in now.learners if member.member_id != learner.member_id)
    append_configuration(state, leading, first_step(now, Configuration(now.voters + promoted, rest)))


# Farewell


def _begin_farewell(state: RaftState, peer: Progress) -> None:
    peer.is_removed = True
    peer.is_learner = False
    patience_ticks = FAREWELL_MAX_ELECTION_TIMEOUTS * state.settings.election_timeout_ticks
    peer.farewell_deadline = state.now_ticks + patience_ticks


def maybe_greet_removed(state: RaftState, sender: MemberId) -> None:
    """A server that asks for votes but is in no configuration missed its removal, or the leader that knew of it."""
    leading = state.leading
    if leading is None or sender in leading.peers or state.configuration_index > state.commit_index:
        return
    if sum(peer.is_removed for peer in leading.peers.values()) >= FAREWELL_MAX_COUNT:
        return
    peer = _new_peer(state, sender)
    _begin_farewell(state, peer)
    leading.peers[sender] = peer
    state.needs_flush = True


def knows_removal(state: RaftState, peer: Progress) -> bool:
    """It holds the committed configuration without it. Its commit index may still be on the way."""
    return peer.match_index >= state.configuration_index and peer.commit_sent >= state.configuration_index


def maybe_end_farewell(state: RaftState, peer: Progress) -> None:
    """Told, but the message may be lost: go on with heartbeats for one election timeout."""
    if knows_removal(state, peer):
        soon = state.now_ticks + state.settings.election_timeout_ticks
        peer.farewell_deadline = min(peer.farewell_deadline, soon)


def drop_overdue_farewells(state: RaftState, leading: Leading) -> None:
    overdue = [p.member_id for p in leading.peers.values() if p.is_removed and p.farewell_deadline <= state.now_ticks]
    for member_id in overdue:
        del leading.peers[member_id]
