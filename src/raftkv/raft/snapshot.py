"""Snapshots in the core: when one counts, never what is in it (Raft §7).

The chunks travel outside; `InstallSnapshot` says that they arrived and are staged. The follower then decides:

- not ahead of its commit index: it has all that already;
- its log holds the snapshot's last entry: everything up to there is committed, and the log is kept ("retain log entries
  following it", Raft figure 13 step 6);
- otherwise the log, whatever it holds, is replaced, and the configuration with it.

The configuration's index is that of the configuration's own entry, so that "is it committed" and "is it newer" stay
true after a restore (matrixone#24966).
"""

from __future__ import annotations

from raftkv.errors import require
from raftkv.raft.follower import follow
from raftkv.raft.messages import InstallSnapshot, InstallSnapshotReply
from raftkv.raft.progress import ProgressState
from raftkv.raft.state import RaftState
from raftkv.types import MemberId, SnapshotMetadata


def handle_install_snapshot(state: RaftState, message: InstallSnapshot) -> None:
    """Of our term."""
    if not follow(state, message.sender):
        return
    snapshot = message.snapshot
    match_index = snapshot.last_index
    if snapshot.last_index <= state.commit_index:
        match_index = min(match_index, state.log.persisted_index)
    elif _log_holds(state, snapshot):
        state.commit_index = snapshot.last_index
    else:
        _install(state, snapshot)
    state.replies.append(
        InstallSnapshotReply(state.current_term, state.member_id, message.sender, match_index, message.read_round)
    )


def _log_holds(state: RaftState, snapshot: SnapshotMetadata) -> bool:
    return snapshot.last_index <= state.log.last_index and state.log.term(snapshot.last_index) == snapshot.last_term


def _install(state: RaftState, snapshot: SnapshotMetadata) -> None:
    """The state machine jumps with the log, so nothing up to `last_index` will be given out to be applied."""
    state.log.reset(snapshot, state.commit_index)
    state.configurations.reset(snapshot)
    state.adopt_configuration()
    state.commit_index = snapshot.last_index
    state.handed_out_index = snapshot.last_index
    state.last_applied = snapshot.last_index


def snapshot_sent(state: RaftState, member_id: MemberId, ok: bool) -> None:
    """The driver's report. Sent: probe where the log begins. Failed: the next heartbeat's answer starts it anew."""
    peer = state.leading.peers.get(member_id) if state.leading is not None else None
    if peer is None or peer.state is not ProgressState.SNAPSHOT:
        return
    peer.become_probe(peer.snapshot_index + 1 if ok else peer.match_index + 1)
    if ok:
        state.needs_flush = True
    else:
        peer.is_recently_active = False


def compacted(state: RaftState) -> None:
    state.log.compact()
    require(
        state.log.base_index <= state.last_applied,
        "the log was cut up to {}, but only {} is applied",
        state.log.base_index,
        state.last_applied,
    )
    state.configurations.compact(state.log.base_index)


def describe(state: RaftState, last_index: int) -> SnapshotMetadata:
    """For a snapshot of the state that has applied `last_index`, which is at or above the log's base."""
    configuration_index, configuration = state.configurations.at(last_index)
    return SnapshotMetadata(last_index, state.log.term(last_index), configuration, configuration_index)
