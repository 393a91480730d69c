"""The sending half of log replication (Raft §5.3; pipelining Thesis §10.2.2).

Inputs only change state; what to send is decided once, in `flush`, when the driver asks for it. So all proposals of one
turn share a message, and one message carries everything a follower needs: entries, commit index, heartbeat and the
newest read round.

A heartbeat is an AppendEntries without entries behind the *last one sent*. If something before it was lost, the
follower lacks the previous entry and says so; no timer a message is needed.

The commit index travels with the next entries. Only a follower that has nothing in flight gets a message of its own for
it, and only when that is asked for (`announce_commit`, `RaftSettings.announces_commits`): a lone client whose every
write is followed by such a message, and its answer, pays for twice the traffic.
"""

from __future__ import annotations

from raftkv.errors import Overloaded
from raftkv.raft import reads
from raftkv.raft.leading import Leading
from raftkv.raft.log import ENTRY_OVERHEAD_BYTES, size_bytes
from raftkv.raft.messages import AppendEntries
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, Entry, EntryKind, MemberId


def propose(state: RaftState, data: bytes) -> tuple[int, int]:
    """Append to the leader's log. The bound is on bytes that are not committed; one entry alone may exceed it."""
    leading = state.leading
    if leading is None or leading.transfer_target != NOBODY:
        leading = state.require_accepting()
    size = len(data) + ENTRY_OVERHEAD_BYTES
    if leading.uncommitted_bytes and leading.uncommitted_bytes + size > state.settings.uncommitted_max_bytes:
        raise Overloaded(f"{leading.uncommitted_bytes} bytes wait to be committed, try again")
    index = state.log.last_index + 1
    state.log.append((Entry(index, state.current_term, EntryKind.COMMANDS, data),))
    leading.proposals.append((index, size))
    leading.uncommitted_bytes += size
    state.needs_flush = True
    return index, state.current_term


def tick(state: RaftState, leading: Leading, elapsed_ticks: int) -> None:
    """Heartbeats are due for everybody at once."""
    leading.heartbeat_elapsed += elapsed_ticks
    if leading.heartbeat_elapsed < state.settings.heartbeat_ticks:
        return
    leading.heartbeat_elapsed = 0
    reads.renew_lease(state, leading)
    for peer in leading.peers.values():
        peer.has_heartbeat_due = True
    state.needs_flush = True


def announce_commit(state: RaftState, leading: Leading) -> None:
    if leading.announced_index < state.commit_index:
        leading.announced_index = state.commit_index
        state.needs_flush = True


def flush(state: RaftState, leading: Leading) -> None:
    """Make the messages that every follower should and may have now."""
    state.needs_flush = False
    reads.maybe_open_round(state, leading)
    for peer in leading.peers.values():
        if peer.next_index <= state.log.base_index and peer.state is not ProgressState.SNAPSHOT:
            _begin_snapshot(state, peer)
        has_sent = False
        if peer.state is ProgressState.REPLICATE:
            has_sent = _send_window(state, leading, peer)
        elif peer.state is ProgressState.PROBE and not peer.is_paused:
            has_sent = _send_probe(state, leading, peer)
        if not has_sent and _needs_empty(leading, peer):
            send_empty(state, leading, peer)
        peer.has_heartbeat_due = False


def _needs_empty(leading: Leading, peer: Progress) -> bool:
    if peer.has_heartbeat_due or leading.read_round > peer.round_sent:
        return True
    return leading.announced_index > peer.commit_sent and not peer.inflight and peer.state is ProgressState.REPLICATE


def _send_window(state: RaftState, leading: Leading, peer: Progress) -> bool:
    """Entries until the log's end or the window's."""
    log, settings = state.log, state.settings
    has_sent = False
    while (
        peer.next_index <= log.last_index
        and peer.inflight_bytes < settings.inflight_max_bytes
        and len(peer.inflight) < settings.inflight_max_count
    ):
        entries = log.entries(peer.next_index, log.last_index, settings.append_max_bytes)
        _send(state, leading, peer, peer.next_index - 1, tuple(entries))
        peer.note_entries_sent(entries[-1].index, size_bytes(entries))
        has_sent = True
    return has_sent


def _send_probe(state: RaftState, leading: Leading, peer: Progress) -> bool:
    """One message of entries as a guess; they are not counted as sent before it is accepted."""
    log = state.log
    if peer.next_index <= log.base_index:
        return False
    entries: list[Entry] = []
    if peer.next_index <= log.last_index:
        entries = log.entries(peer.next_index, log.last_index, state.settings.append_max_bytes)
    peer.is_paused = True
    _send(state, leading, peer, peer.next_index - 1, tuple(entries))
    return True


def send_empty(state: RaftState, leading: Leading, peer: Progress) -> None:
    """Where the log no longer reaches back to `next_index`, ask at its base."""
    base_index = state.log.base_index
    is_below_base = peer.state is ProgressState.SNAPSHOT or peer.next_index <= base_index
    _send(state, leading, peer, base_index if is_below_base else peer.next_index - 1, ())


def _send(state: RaftState, leading: Leading, peer: Progress, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
    peer.commit_sent = state.commit_index
    peer.round_sent = leading.read_round
    state.messages.append(
        AppendEntries(
            state.current_term,
            state.member_id,
            peer.member_id,
            prev_log_index,
            state.log.term(prev_log_index),
            state.commit_index,
            leading.read_round,
            entries,
        )
    )


def _begin_snapshot(state: RaftState, peer: Progress) -> None:
    """It needs what the log no longer has (Raft §7). Nothing is streamed to a server that has not answered lately."""
    if peer.is_recently_active:
        peer.become_snapshot(state.log.base_index)
        state.snapshots_to_send.append(peer.member_id)
    elif peer.state is ProgressState.REPLICATE:
        peer.become_probe(peer.next_index)


def unreachable(state: RaftState, member_id: MemberId) -> None:
    """Do not wait for a heartbeat to find out what was lost."""
    peer = state.leading.peers.get(member_id) if state.leading is not None else None
    if peer is not None and peer.state is ProgressState.REPLICATE:
        peer.become_probe(peer.match_index + 1)
