"""The receiving half of log replication (Raft §5.3, figure 2 "AppendEntries RPC").

What an answer claims is what *this* message proved, and only what is durable: `match_index` is the end of the
message's entries, never the end of the log, whose rest may be left from an older leader. Only an entry that
differs truncates; a short, old or repeated message leaves a matching suffix alone.

When a message brings entries, its answer waits for them to be durable. When it brings none, the answer goes at
once and claims no more than is durable already: it confirms reads and leadership without waiting for a disk, and the
answer to the message that brought the entries is on its way.
"""

from __future__ import annotations

from raftkv.errors import require
from raftkv.raft import election
from raftkv.raft.messages import AppendEntries, AppendEntriesReply
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, MemberId, Role


def follow(state: RaftState, leader: MemberId) -> bool:
    """A leader of our term spoke. False when we know another one: the message cannot be genuine (Raft §5.2)."""
    if state.leader == leader and state.role is Role.FOLLOWER:
        state.election_elapsed = 0
    elif state.leader == NOBODY:
        election.become_follower(state, state.current_term, leader, "the leader of the term spoke")
    else:
        state.ignored_count += 1
        return False
    election.promise_no_vote(state)
    return True


def handle_append_entries(state: RaftState, message: AppendEntries) -> None:
    """Of our term."""
    if not follow(state, message.sender):
        return
    if not _has_previous(state, message):
        _refuse(state, message)
        return
    verified_index = message.prev_log_index + len(message.entries)
    brought_entries = bool(message.entries) and _store_new(state, message)
    commit_index = min(message.leader_commit, verified_index)
    state.commit_index = max(state.commit_index, commit_index)
    if brought_entries or not state.is_hard_state_durable:
        state.replies.append(_success(state, message, verified_index))
    else:
        state.messages.append(_success(state, message, min(verified_index, state.log.persisted_index)))


def _has_previous(state: RaftState, message: AppendEntries) -> bool:
    """The consistency check. Below our base the log is committed, so it agrees with every leader's (Raft §5.4)."""
    log = state.log
    index = message.prev_log_index
    if index > log.last_index:
        return False
    return index < log.base_index or log.term(index) == message.prev_log_term


def _store_new(state: RaftState, message: AppendEntries) -> bool:
    """Append what the log does not have yet. False when it has everything."""
    log = state.log
    entries = message.entries
    if message.prev_log_index == log.last_index:
        state.append(entries)
        return True
    for position, entry in enumerate(entries):
        if entry.index < log.base_index:
            continue  # cut off, so it cannot be compared; at the base it can
        if entry.index > log.last_index:
            state.append(entries[position:])
            return True
        if log.term(entry.index) != entry.term:
            require(
                entry.index > state.commit_index,
                "leader {} of term {} has another entry at {} than the one committed here",
                message.sender,
                message.term,
                entry.index,
            )
            state.truncate_from(entry.index)
            state.append(entries[position:])
            return True
    return False


def _success(state: RaftState, message: AppendEntries, match_index: int) -> AppendEntriesReply:
    return AppendEntriesReply(
        state.current_term,
        state.member_id,
        message.sender,
        True,
        match_index,
        message.prev_log_index,
        0,
        0,
        message.read_round,
    )


def _refuse(state: RaftState, message: AppendEntries) -> None:
    """With a hint that lets the leader skip whole terms at once (Raft §5.3, end)."""
    log = state.log
    hint_index = max(log.find_agreement(message.prev_log_index, message.prev_log_term), log.base_index)
    state.replies.append(
        AppendEntriesReply(
            state.current_term,
            state.member_id,
            message.sender,
            False,
            0,
            message.prev_log_index,
            hint_index,
            log.term(hint_index),
            message.read_round,
        )
    )
