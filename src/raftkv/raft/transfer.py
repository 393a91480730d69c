"""Handing leadership over (Thesis §3.10).

The leader takes no more proposals, brings the heir's log up to its own, and tells it to campaign at once
(`TimeoutNow`). If the heir has not taken over within an election timeout, the leader goes on as before, except for
lease reads (see `Leading.has_handed_over`).
"""

from __future__ import annotations

from raftkv.errors import MembershipRefused
from raftkv.raft import election, replication
from raftkv.raft.leading import Leading
from raftkv.raft.messages import TimeoutNow
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, MemberId, Role


def transfer_leadership(state: RaftState, target: MemberId | None) -> None:
    """None chooses. Nothing when this server is the target, or on the way to it already."""
    leading = state.require_leading()
    if target == state.member_id or (target is not None and target == leading.transfer_target):
        return
    heir = _choose_heir(state, leading) if target is None else leading.peers.get(target)
    if heir is None or heir.member_id not in state.voters.incoming:
        raise MembershipRefused("leadership can only be handed to another voter, and there is no such voter")
    leading.transfer_target = heir.member_id
    leading.transfer_deadline = state.now_ticks + state.settings.election_timeout_ticks
    leading.transfer_is_sent = False
    leading.lease_until = 0
    state.needs_flush = True
    maybe_hand_over(state, leading, heir)


def _choose_heir(state: RaftState, leading: Leading) -> Progress | None:
    """The most up-to-date voter among those heard lately; the first of equals."""
    heard_since = state.now_ticks - state.settings.election_timeout_ticks
    voters = [leading.peers[member_id] for member_id in state.voters.incoming if member_id != state.member_id]
    return max(voters, key=lambda peer: (peer.heard_tick > heard_since, peer.match_index), default=None)


def maybe_hand_over(state: RaftState, leading: Leading, heir: Progress) -> None:
    if not leading.transfer_is_sent and heir.match_index == state.log.last_index:
        _send_timeout_now(state, leading, heir)
        leading.transfer_is_sent = True


def _send_timeout_now(state: RaftState, leading: Leading, heir: Progress) -> None:
    leading.has_handed_over = True
    state.messages.append(TimeoutNow(state.current_term, state.member_id, heir.member_id))


def tick(state: RaftState, leading: Leading) -> None:
    if leading.transfer_target != NOBODY and state.now_ticks >= leading.transfer_deadline:
        leading.transfer_target = NOBODY


def send_last_words(state: RaftState, leading: Leading) -> None:
    """Of a leader that removed itself: what is committed now, to everybody; then the best voter takes over."""
    for peer in leading.peers.values():
        if peer.state is not ProgressState.SNAPSHOT:
            replication.send_empty(state, leading, peer)
    heir = _choose_heir(state, leading)
    if heir is not None and heir.match_index >= state.configuration_index:
        _send_timeout_now(state, leading, heir)


def handle_timeout_now(state: RaftState, message: TimeoutNow) -> None:
    """Of our term, from its leader. Skips the pre-vote: the others still hear the leader (Thesis §3.10)."""
    if state.role is Role.LEADER or state.leader not in (NOBODY, message.sender):
        state.ignored_count += 1
        return
    election.campaign(state, leadership_transfer=True)
