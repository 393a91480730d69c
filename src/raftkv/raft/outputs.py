"""The way out: what was decided becomes one `Effects`, and durability lets held answers go.

An answer may only leave once everything decided before it is durable (Raft figure 2). Three cases at `take`:

1. this step has something to persist: the answer leaves with it, in `messages_after_persist`;
2. nothing new, but an earlier step is still being written: it is *held* until that step is reported;
3. everything is durable: it leaves at once.
"""

from __future__ import annotations

from raftkv.errors import require
from raftkv.raft import commitment, election, replication
from raftkv.raft.effects import Effects, Leadership
from raftkv.raft.state import RaftState
from raftkv.types import Entry, HardState


def has_ready(state: RaftState) -> bool:
    return bool(
        state.messages
        or (state.needs_flush and state.leading is not None)
        or state.hard_state_changed
        or state.log.has_unwritten
        or state.handed_out_index < min(state.commit_index, state.log.persisted_index)
        or state.replies
        or state.reads
        or state.refused_reads
        or state.snapshots_to_send
        or state.configuration_changed
        or state.leadership_changed
    )


def take(state: RaftState) -> Effects:
    """Everything new, once."""
    if state.needs_flush and state.leading is not None:
        replication.flush(state, state.leading)
    effects = Effects(committed=_take_committed(state))
    _take_step(state, effects)
    _take_replies(state, effects)
    if state.messages:
        effects.messages, state.messages = state.messages, effects.messages
    if state.reads:
        effects.reads, state.reads = state.reads, effects.reads
    if state.refused_reads:
        effects.refused_reads, state.refused_reads = state.refused_reads, effects.refused_reads
    if state.snapshots_to_send:
        effects.snapshots_to_send, state.snapshots_to_send = state.snapshots_to_send, effects.snapshots_to_send
    if state.leadership_changed:
        effects.leadership = Leadership(state.role, state.current_term, state.leader, state.cause)
        state.told_leadership = (state.role, state.current_term, state.leader)
    if state.configuration_changed:
        effects.configuration = state.configuration
        state.configuration_changed = False
    return effects


def _take_step(state: RaftState, effects: Effects) -> None:
    log = state.log
    if not (state.hard_state_changed or log.has_unwritten):
        return
    effects.snapshot = log.take_reset()
    effects.entries = log.take_unwritten()
    effects.ticket = log.open_step()
    if state.hard_state_changed:
        effects.hard_state = HardState(state.current_term, state.voted_for)
        state.hard_state_changed = False
        state.hard_state_ticket = effects.ticket


def _take_replies(state: RaftState, effects: Effects) -> None:
    replies = state.replies
    if not replies:
        return
    state.replies = []
    if effects.ticket:
        effects.messages_after_persist = replies
    elif state.log.persisted_ticket < state.log.last_ticket:
        state.held.extend((state.log.last_ticket, reply) for reply in replies)
    else:
        state.messages.extend(replies)


def _take_committed(state: RaftState) -> list[Entry]:
    """Committed *and* durable here: what is applied must still be in the log after a crash."""
    last_index = min(state.commit_index, state.log.persisted_index)
    first_index = state.handed_out_index + 1
    if first_index > last_index:
        return []
    entries = state.log.entries(first_index, last_index, state.settings.committed_max_bytes)
    state.handed_out_index = entries[-1].index
    return entries


def persisted(state: RaftState, ticket: int) -> None:
    log = state.log
    was_index = log.persisted_index
    log.mark_persisted(ticket)
    if state.held:
        _release_held(state)
    if not state.is_hard_state_durable:
        return
    election.handle_vote_persisted(state)
    if state.leading is not None and log.persisted_index != was_index:
        commitment.maybe_commit(state, state.leading)


def _release_held(state: RaftState) -> None:
    persisted_ticket = state.log.persisted_ticket
    while state.held and state.held[0][0] <= persisted_ticket:
        state.messages.append(state.held.pop(0)[1])


def applied(state: RaftState, index: int) -> None:
    require(index <= state.handed_out_index, "{} reported applied, given out was {}", index, state.handed_out_index)
    state.last_applied = max(state.last_applied, index)
