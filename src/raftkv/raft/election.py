"""Terms, votes and roles (Raft §5.2, §5.4.1; pre-vote Thesis §9.6; check-quorum Thesis §6.2, §4.2.3).

    follower ──timeout──▶ pre-candidate ──majority would vote──▶ candidate ──majority voted──▶ leader

Rules beyond the paper's figure 2:

- A pre-vote changes neither term nor vote at anybody and is a message of its own, so it cannot be counted as a vote.
- Whoever heard a leader within the least election timeout refuses pre-votes and, with check-quorum, does not even look
  at the term of a `RequestVote`; only a handed-over leadership may interrupt (`leadership_transfer`).
- That alone could strand a server whose term is higher than the leader's: it would be refused for ever and would refuse
  the leader for ever. So every request of a lower term is answered with the higher one, the leader steps down
  once, and the next election includes the stray.
- A candidate counts its own vote only once it is durable. Otherwise a sole voter could lead, crash, forget, and lead
  the same term again with another log.

Turned down: treating a vote request of a server outside the configuration as an error. Configurations differ while they
change, so a vote is given by term and log alone (Raft §6); what protects the cluster is the leader that is heard.
"""

from __future__ import annotations

from raftkv.raft import membership, reads
from raftkv.raft.leading import Leading
from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.raft.quorum import VoteOutcome
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, Entry, EntryKind, MemberId, Role

_FROM_LEADER = (AppendEntries, InstallSnapshot, TimeoutNow)
_ANSWERS = (AppendEntriesReply, InstallSnapshotReply, RequestVoteReply, PreVoteReply, ReadIndexReply)


def has_heard_leader(state: RaftState) -> bool:
    """Within the least election timeout; a leader hears itself."""
    if state.role is Role.LEADER or state.now_ticks < state.vote_hold_until:
        return True
    return state.leader != NOBODY and state.election_elapsed < state.settings.election_timeout_ticks


def promise_no_vote(state: RaftState) -> None:
    """A leader may count its lease from what we answer now, so the promise must outlive our knowing of that leader.

    A newer term heard by accident (a late answer to somebody's failed candidacy) makes us forget the leader, but not
    what it was promised (Thesis §6.4.1).
    """
    if state.settings.lease_reads:
        state.vote_hold_until = state.now_ticks + state.settings.election_timeout_ticks


# Terms


def observe_term(state: RaftState, message: Message) -> bool:
    """For a message of another term than ours: follow it, answer it, or drop it. True when it is to be handled."""
    if message.term > state.current_term:
        return _observe_higher_term(state, message)
    if isinstance(message, PreVote | PreVoteReply):
        return True  # both speak of a term that nobody is in yet
    _answer_lower_term(state, message)
    return False


def _observe_higher_term(state: RaftState, message: Message) -> bool:
    if isinstance(message, PreVote):
        return True
    if isinstance(message, RequestVote):
        membership.maybe_greet_removed(state, message.sender)
        if state.settings.check_quorum and has_heard_leader(state) and not message.leadership_transfer:
            return False
    elif isinstance(message, _ANSWERS) and message.sender not in state.configuration.members():
        state.ignored_count += 1  # a removed server must not disrupt (Raft §6)
        return False
    leader = message.sender if isinstance(message, _FROM_LEADER) else NOBODY
    become_follower(state, message.term, leader, f"a {type(message).__name__} has a higher term")
    return True


def _answer_lower_term(state: RaftState, message: Message) -> None:
    """The sender learns our term and stops (Raft figure 2, "reply false if term < currentTerm")."""
    term, me, sender = state.current_term, state.member_id, message.sender
    match message:
        case AppendEntries():
            prev_log_index = message.prev_log_index
            state.replies.append(AppendEntriesReply(term, me, sender, False, 0, prev_log_index, 0, 0, 0))
        case InstallSnapshot():
            state.replies.append(InstallSnapshotReply(term, me, sender, 0, 0))
        case RequestVote():
            state.replies.append(RequestVoteReply(term, me, sender, False))
        case ReadIndex():
            state.replies.append(ReadIndexReply(term, me, sender, message.request_id, False, 0))
        case _:
            pass


# Roles


def become_follower(state: RaftState, term: int, leader: MemberId, cause: str) -> None:
    """Also the way out of leading; everything that only a leader has is gone afterwards. `cause` is for people."""
    state.cause = cause
    if term != state.current_term:
        state.set_term(term, NOBODY)
    if leader != state.leader or state.leading is not None:
        reads.refuse_all(state)
    if leader != NOBODY or state.role is not Role.FOLLOWER:  # a mere higher term is no reason to wait longer
        state.election_elapsed = 0
        state.draw_election_timeout()
    state.leading = None
    state.role = Role.FOLLOWER
    state.leader = leader
    state.votes = {}


def can_campaign(state: RaftState) -> bool:
    """A voter; or one whose removal is in its log and not known to be committed.

    The second case is rare and needed (Thesis §4.2.2, figure 4.6): of two servers the leader removes itself and crashes
    while only it has that entry. The other cannot win against the longer log, so the removed one must lead once
    more, without counting itself. Once the removal is committed it never campaigns again.
    """
    if state.is_voter:
        return True
    index = state.configuration_index
    return index > state.commit_index and state.configurations.at(index - 1)[1].is_voter(state.member_id)


def campaign(state: RaftState, leadership_transfer: bool = False) -> None:
    """Nothing for a leader, nor while a candidate's vote for itself is still being written: its disk is stuck."""
    if state.role is Role.LEADER or (state.role is Role.CANDIDATE and not state.is_hard_state_durable):
        return
    if not can_campaign(state):
        if state.leader != NOBODY:
            become_follower(state, state.current_term, NOBODY, "no leader was heard, and it is not a voter")
        return
    state.cause = "leadership was handed to it" if leadership_transfer else "no leader was heard in time"
    reads.refuse_all(state)
    state.leader = NOBODY
    state.election_elapsed = 0
    state.draw_election_timeout()
    if state.settings.pre_vote and not leadership_transfer:
        _become_pre_candidate(state)
    else:
        _become_candidate(state, leadership_transfer)


def _become_pre_candidate(state: RaftState) -> None:
    state.role = Role.PRE_CANDIDATE
    state.votes = {state.member_id: True}
    log = state.log
    for voter in state.voters.all:
        if voter != state.member_id:
            term = state.current_term + 1
            state.messages.append(PreVote(term, state.member_id, voter, log.last_index, log.last_term))
    _count_votes(state)


def _become_candidate(state: RaftState, leadership_transfer: bool) -> None:
    state.role = Role.CANDIDATE
    state.votes = {}
    state.set_term(state.current_term + 1, state.member_id)
    log = state.log
    for voter in state.voters.all:
        if voter != state.member_id:
            request = RequestVote(
                state.current_term, state.member_id, voter, log.last_index, log.last_term, leadership_transfer
            )
            state.replies.append(request)  # only once the vote for ourselves is durable


def handle_vote_persisted(state: RaftState) -> None:
    """A step became durable: perhaps the one with our vote for ourselves."""
    if state.role is Role.CANDIDATE and state.member_id not in state.votes and state.is_hard_state_durable:
        state.votes[state.member_id] = True
        _count_votes(state)


def _count_votes(state: RaftState) -> None:
    match state.voters.vote_outcome(state.votes):
        case VoteOutcome.WON if state.role is Role.PRE_CANDIDATE:
            _become_candidate(state, leadership_transfer=False)
        case VoteOutcome.WON:
            _become_leader(state)
        case VoteOutcome.LOST:
            become_follower(state, state.current_term, NOBODY, "a majority did not vote for it")
        case VoteOutcome.PENDING:
            pass


def _become_leader(state: RaftState) -> None:
    """The no-op lets this leader commit what earlier ones left, and learn the commit index (Raft §5.4.2, §8)."""
    state.cause = "a majority voted for it"
    state.role = Role.LEADER
    state.leader = state.member_id
    state.votes = {}
    index = state.log.last_index + 1
    leading = state.leading = Leading(index)
    membership.refresh_peers(state, leading)
    state.append((Entry(index, state.current_term, EntryKind.NOOP),))
    state.needs_flush = True


# Votes


def handle_pre_vote(state: RaftState, message: PreVote) -> None:
    """`message.term` is the term that the sender would campaign in."""
    membership.maybe_greet_removed(state, message.sender)
    granted = (
        message.term > state.current_term
        and not has_heard_leader(state)
        and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    state.replies.append(PreVoteReply(state.current_term, state.member_id, message.sender, message.term, granted))


def handle_pre_vote_reply(state: RaftState, message: PreVoteReply) -> None:
    if state.role is Role.PRE_CANDIDATE and message.requested_term == state.current_term + 1:
        _note_vote(state, message.sender, message.vote_granted)


def handle_request_vote(state: RaftState, message: RequestVote) -> None:
    """Of our term. One vote a term, to a log at least as up to date as ours (Raft §5.2, §5.4.1)."""
    is_free = state.voted_for == message.sender or (state.voted_for == NOBODY and state.leader == NOBODY)
    granted = is_free and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    if granted and state.now_ticks < state.vote_hold_until and not message.leadership_transfer:
        granted = False
    if granted:
        state.election_elapsed = 0
        if state.voted_for != message.sender:
            state.set_term(state.current_term, message.sender)
    state.replies.append(RequestVoteReply(state.current_term, state.member_id, message.sender, granted))


def handle_request_vote_reply(state: RaftState, message: RequestVoteReply) -> None:
    if state.role is Role.CANDIDATE:
        _note_vote(state, message.sender, message.vote_granted)


def _note_vote(state: RaftState, voter: MemberId, granted: bool) -> None:
    """The first answer counts, so that a doubled message is one vote."""
    if voter in state.voters.all:
        state.votes.setdefault(voter, granted)
        _count_votes(state)


# Time


def tick_follower(state: RaftState) -> None:
    """Every role but leader."""
    state.election_elapsed += 1
    if state.forwarded_reads:
        reads.refuse_overdue(state)
    if state.election_elapsed >= state.randomized_election_timeout:
        state.election_elapsed = 0
        campaign(state)


def maybe_step_down(state: RaftState, leading: Leading) -> bool:
    """Check-quorum, once an election timeout: a leader that hears no majority, or whose disk stands still, stops.

    A stalled disk does not stop replication (Thesis §10.2.1), but nothing can be applied or answered here any
    more, so another server should lead (consul#22064).
    """
    is_active = state.voters.is_quorum(
        lambda member_id: member_id == state.member_id or leading.peers[member_id].is_recently_active
    )
    oldest_ticket = state.log.oldest_unpersisted_ticket
    is_stalled = oldest_ticket != 0 and oldest_ticket == leading.stalled_ticket
    leading.stalled_ticket = oldest_ticket
    for peer in leading.peers.values():
        peer.is_recently_active = False
    if state.settings.check_quorum and (is_stalled or not is_active):
        cause = "its disk stands still" if is_stalled else "no majority answered for an election timeout"
        become_follower(state, state.current_term, NOBODY, cause)
        return True
    return False
