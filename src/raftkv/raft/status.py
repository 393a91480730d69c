"""A picture of one server for people, metrics and tests. Copies: holding one keeps nothing alive."""

from __future__ import annotations

import dataclasses

from raftkv.raft.progress import Progress
from raftkv.raft.state import RaftState
from raftkv.types import Configuration, MemberId, Role


@dataclasses.dataclass(frozen=True, slots=True)
class PeerStatus:
    """`state` is probe, replicate or snapshot; `inflight` counts messages with entries."""

    member_id: MemberId
    state: str
    match_index: int
    next_index: int
    inflight: int
    inflight_bytes: int
    recent_active: bool
    is_learner: bool
    is_removed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """`progress` is empty unless `role` is leader; `ignored_count` is of messages that no honest server sends."""

    member_id: MemberId
    role: Role
    current_term: int
    voted_for: MemberId
    leader: MemberId
    commit_index: int
    last_applied: int
    first_index: int
    last_index: int
    last_term: int
    persisted_index: int
    configuration: Configuration
    configuration_index: int
    progress: dict[MemberId, PeerStatus]
    transfer_target: MemberId
    uncommitted_bytes: int
    ignored_count: int


def describe(state: RaftState) -> Status:
    leading = state.leading
    return Status(
        member_id=state.member_id,
        role=state.role,
        current_term=state.current_term,
        voted_for=state.voted_for,
        leader=state.leader,
        commit_index=state.commit_index,
        last_applied=state.last_applied,
        first_index=state.log.base_index + 1,
        last_index=state.log.last_index,
        last_term=state.log.last_term,
        persisted_index=state.log.persisted_index,
        configuration=state.configuration,
        configuration_index=state.configuration_index,
        progress={peer.member_id: _describe_peer(peer) for peer in leading.peers.values()} if leading else {},
        transfer_target=leading.transfer_target if leading else 0,
        uncommitted_bytes=leading.uncommitted_bytes if leading else 0,
        ignored_count=state.ignored_count,
    )


def _describe_peer(peer: Progress) -> PeerStatus:
    return PeerStatus(
        member_id=peer.member_id,
        state=peer.state.value,
        match_index=peer.match_index,
        next_index=peer.next_index,
        inflight=len(peer.inflight),
        inflight_bytes=peer.inflight_bytes,
        recent_active=peer.is_recently_active,
        is_learner=peer.is_learner,
        is_removed=peer.is_removed,
    )
