"""What answers tell the leader about its followers (Raft §5.3).

Any answer of this term shows that the follower is alive and still follows, so it counts for check-quorum and for read
rounds, also a refusal. A success moves `match_index`; everything that can follow from that is decided here in one
order: commit, promotion, farewell, hand-over.
"""

from __future__ import annotations

from raftkv.raft import commitment, membership, reads, transfer
from raftkv.raft.leading import Leading
from raftkv.raft.messages import AppendEntriesReply, InstallSnapshotReply
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.state import RaftState
from raftkv.types import MemberId


def handle_append_entries_reply(state: RaftState, message: AppendEntriesReply) -> None:
    """Of our term."""
    leading = state.leading
    peer = _note_heard(state, message.sender, message.match_index, message.read_round)
    if leading is None or peer is None:
        return
    if message.success:
        note_match(state, leading, peer, message.match_index, message.prev_log_index)
    else:
        _note_refusal(state, peer, message)
    if peer.next_index <= state.log.base_index:
        state.needs_flush = True  # now that it answers it can be sent a snapshot


def handle_install_snapshot_reply(state: RaftState, message: InstallSnapshotReply) -> None:
    """Of our term."""
    leading = state.leading
    peer = _note_heard(state, message.sender, message.match_index, message.read_round)
    if leading is not None and peer is not None:
        note_match(state, leading, peer, message.match_index)


def _note_heard(state: RaftState, sender: MemberId, match_index: int, read_round: int) -> Progress | None:
    """None when the answer cannot be to a question of ours."""
    leading = state.leading
    if leading is None:
        return None
    peer = leading.peers.get(sender)
    if peer is None or match_index > state.log.last_index or read_round > leading.read_round:
        state.ignored_count += 1
        return None
    peer.is_recently_active = True
    peer.heard_tick = state.now_ticks
    reads.handle_acknowledged_round(state, leading, peer, read_round)
    return peer


def note_match(state: RaftState, leading: Leading, peer: Progress, match_index: int, agreed_index: int = 0) -> None:
    """`peer` holds the same log up to `agreed_index`, and durably up to `match_index`.

    From the former on it is sent entries; only the latter counts for anything. One that is still writing a snapshot
    agrees at its end and claims nothing: sent what comes after its match, it would need the snapshot again.
    """
    has_moved = peer.note_match(match_index)
    if peer.state is ProgressState.PROBE or (
        peer.state is ProgressState.SNAPSHOT and peer.match_index >= state.log.base_index
    ):
        peer.become_replicate(min(agreed_index, state.log.last_index))
        state.needs_flush = True
    if has_moved:
        state.needs_flush = True
        commitment.maybe_commit(state, leading)
        if state.leading is not leading:
            return  # it stepped down
    if peer.is_learner:
        membership.maybe_promote(state, leading, peer)
    elif peer.is_removed:
        membership.maybe_end_farewell(state, peer)
    elif peer.member_id == leading.transfer_target:
        transfer.maybe_hand_over(state, leading, peer)


def _note_refusal(state: RaftState, peer: Progress, message: AppendEntriesReply) -> None:
    """Back up to the last place where the logs may agree; old refusals are recognised by what they refused."""
    refused_index = message.prev_log_index
    is_answer_to_probe = peer.state is ProgressState.PROBE and refused_index == peer.next_index - 1
    if refused_index <= peer.match_index or not (is_answer_to_probe or peer.state is ProgressState.REPLICATE):
        return
    hint_index = state.log.find_agreement(min(message.hint_index, refused_index), message.hint_term)
    peer.become_probe(min(hint_index + 1, refused_index))
    state.needs_flush = True
