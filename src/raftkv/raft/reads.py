"""Linearizable reads without log entries (Thesis §6.4).

A read may be answered from any state that has applied `read_index`, once it is sure that no newer leader had been
elected when the read was asked. The leader makes sure with a *round*: a number that goes out with every
AppendEntries and comes back with every reply. Answers of this term from a quorum to a message that was sent
after the read was asked prove it. All reads gathered since the last round share the next one.

Invariants: a round number is used once in a term and only replies of that term count, so no old answer can
confirm a new read; no round is opened before an entry of this term is committed, as before that the leader
does not know the commit index (Thesis §6.4 step 1).

A lease lets the leader skip the round while the last one is younger than an election timeout. It is counted from
the tick at which the round was *sent*, since that is when the followers' promise began at the earliest. The
clock moves only with `tick`: a driver that was paused must give `tick` its whole pause before it asks for
a lease read, and before it steps a message of the leader, who counts on what the answer promises.
`lease_margin_ticks` pays for clocks that drift apart and for one tick of rounding at a follower; this side's
rounding is paid here.

Turned down: a fresh round for every read (a burst of reads would be a burst of messages), and a round number
that is the request id (ids come back after a restart, etcd#20418).
"""

from __future__ import annotations

from raftkv.raft.effects import ConfirmedRead
from raftkv.raft.leading import Leading, ReadRound
from raftkv.raft.messages import ReadIndex, ReadIndexReply
from raftkv.raft.progress import Progress
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, MemberId

PENDING_READ_MAX_COUNT = 1 << 16
"""Reads that wait for the leader, or at the leader; above it they are refused."""

OPEN_ROUND_MAX_COUNT = 4
"""Rounds with reads that may be unconfirmed; above it reads gather, so a slow quorum means larger rounds."""


def request_read(state: RaftState, request_id: int, lease: bool) -> None:
    leading = state.leading
    if leading is not None:
        if lease and has_lease(state, leading):
            state.reads.append(ConfirmedRead(request_id, state.commit_index))
        else:
            _gather(state, leading, state.member_id, request_id)
    elif state.leader != NOBODY and len(state.forwarded_reads) < PENDING_READ_MAX_COUNT:
        state.forwarded_reads[request_id] = state.now_ticks
        state.messages.append(ReadIndex(state.current_term, state.member_id, state.leader, request_id))
    else:
        state.refused_reads.append(request_id)


def has_lease(state: RaftState, leading: Leading) -> bool:
    """The next tick may be almost over already, hence the 1."""
    return (
        state.now_ticks + 1 < leading.lease_until
        and leading.transfer_target == NOBODY
        and not leading.has_handed_over
        and state.commit_index >= leading.term_start_index
    )


def handle_read_index(state: RaftState, message: ReadIndex) -> None:
    leading = state.leading
    if leading is None or message.sender not in leading.peers:
        _reply(state, message.sender, message.request_id, False, 0)
    else:
        _gather(state, leading, message.sender, message.request_id)


def handle_read_index_reply(state: RaftState, message: ReadIndexReply) -> None:
    """Unknown ids are late or doubled answers."""
    if message.sender != state.leader or state.forwarded_reads.pop(message.request_id, None) is None:
        return
    if message.success:
        state.reads.append(ConfirmedRead(message.request_id, message.read_index))
    else:
        state.refused_reads.append(message.request_id)


def _gather(state: RaftState, leading: Leading, asker: MemberId, request_id: int) -> None:
    if leading.pending_read_count >= PENDING_READ_MAX_COUNT:
        _refuse(state, asker, request_id)
        return
    leading.gathered_reads.append((asker, request_id))
    leading.pending_read_count += 1
    state.needs_flush = True


def maybe_open_round(state: RaftState, leading: Leading) -> None:
    """Called when messages are about to be made: they will carry the new round."""
    if not leading.gathered_reads or state.commit_index < leading.term_start_index:
        return
    if sum(bool(read_round.requests) for read_round in leading.rounds) < OPEN_ROUND_MAX_COUNT:
        open_round(state, leading)


def open_round(state: RaftState, leading: Leading) -> None:
    """A later commit index than at the time of asking is as good; so the round has one for all its reads."""
    leading.read_round += 1
    requests, leading.gathered_reads = leading.gathered_reads, []
    leading.rounds.append(ReadRound(leading.read_round, state.now_ticks, state.commit_index, requests))
    maybe_confirm(state, leading)  # a leader that is a quorum by itself needs no answer


def renew_lease(state: RaftState, leading: Leading) -> None:
    """At each heartbeat. With check-quorum off followers keep no promise, so there is no lease (Thesis §6.4.1)."""
    settings = state.settings
    if settings.lease_reads and settings.check_quorum and state.commit_index >= leading.term_start_index:
        open_round(state, leading)


def handle_acknowledged_round(state: RaftState, leading: Leading, peer: Progress, read_round: int) -> None:
    """`peer` answered, in this term, a message that carried `read_round`."""
    if read_round > peer.round_acknowledged:
        peer.round_acknowledged = read_round
        maybe_confirm(state, leading)


def maybe_confirm(state: RaftState, leading: Leading) -> None:
    rounds = leading.rounds
    if not rounds:
        return
    confirmed = state.voters.agreed_position(
        lambda member_id: (
            leading.read_round if member_id == state.member_id else leading.peers[member_id].round_acknowledged
        )
    )
    settings = state.settings
    while rounds and rounds[0].number <= confirmed:
        done = rounds.popleft()
        if settings.lease_reads and settings.check_quorum:
            lease_ticks = settings.election_timeout_ticks - settings.lease_margin_ticks
            leading.lease_until = max(leading.lease_until, done.sent_tick + lease_ticks)
        leading.pending_read_count -= len(done.requests)
        for asker, request_id in done.requests:
            _confirm(state, asker, request_id, done.read_index)
    if leading.gathered_reads:
        state.needs_flush = True


def _confirm(state: RaftState, asker: MemberId, request_id: int, read_index: int) -> None:
    if asker == state.member_id:
        state.reads.append(ConfirmedRead(request_id, read_index))
    else:
        _reply(state, asker, request_id, True, read_index)


def _refuse(state: RaftState, asker: MemberId, request_id: int) -> None:
    if asker == state.member_id:
        state.refused_reads.append(request_id)
    else:
        _reply(state, asker, request_id, False, 0)


def _reply(state: RaftState, asker: MemberId, request_id: int, success: bool, read_index: int) -> None:
    state.messages.append(ReadIndexReply(state.current_term, state.member_id, asker, request_id, success, read_index))


def refuse_all(state: RaftState) -> None:
    """The leader, or this server's leadership, is gone: nobody will confirm these."""
    state.refused_reads.extend(state.forwarded_reads)
    state.forwarded_reads.clear()
    leading = state.leading
    if leading is None:
        return
    for read_round in leading.rounds:
        for asker, request_id in read_round.requests:
            _refuse(state, asker, request_id)
    for asker, request_id in leading.gathered_reads:
        _refuse(state, asker, request_id)


def refuse_overdue(state: RaftState) -> None:
    """A forwarded read whose question or answer was lost is refused after an election timeout."""
    oldest_tick = state.now_ticks - state.settings.election_timeout_ticks
    overdue = []
    for request_id, sent_tick in state.forwarded_reads.items():
        if sent_tick > oldest_tick:
            break
        overdue.append(request_id)
    for request_id in overdue:
        del state.forwarded_reads[request_id]
    state.refused_reads.extend(overdue)
