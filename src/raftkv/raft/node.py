"""The face of the consensus core: inputs in, one `Effects` out. It routes and decides nothing.

The core is a pure function of its inputs and of the injected random numbers: it knows no clock, disk, socket, thread or
`async`, so the same seed and inputs give the same effects. What the caller owes in return is written once, on
`raftkv.raft.effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from raftkv.errors import require
from raftkv.raft import (
    acknowledgement,
    commitment,
    election,
    follower,
    invariants,
    membership,
    outputs,
    reads,
    replication,
    snapshot,
    status,
    transfer,
)
from raftkv.raft.effects import Effects
from raftkv.raft.log import LogStorage
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
from raftkv.raft.settings import RaftSettings
from raftkv.raft.state import RaftState
from raftkv.raft.status import Status
from raftkv.raft.validation import is_sane
from raftkv.types import Configuration, Member, MemberId, Role, SnapshotMetadata

_HANDLERS: dict[type[Message], Callable[[RaftState, Any], None]] = {
    PreVote: election.handle_pre_vote,
    PreVoteReply: election.handle_pre_vote_reply,
    RequestVote: election.handle_request_vote,
    RequestVoteReply: election.handle_request_vote_reply,
    AppendEntries: follower.handle_append_entries,
    AppendEntriesReply: acknowledgement.handle_append_entries_reply,
    InstallSnapshot: snapshot.handle_install_snapshot,
    InstallSnapshotReply: acknowledgement.handle_install_snapshot_reply,
    TimeoutNow: transfer.handle_timeout_now,
    ReadIndex: reads.handle_read_index,
    ReadIndexReply: reads.handle_read_index_reply,
}


class RaftNode:
    """One server. Not thread-safe; every method returns at once."""

    __slots__ = ("_invariants", "_state")

    def __init__(self, settings: RaftSettings, storage: LogStorage, random: Random, applied_index: int = 0) -> None:
        """`applied_index` is what the state machine holds durably; what is behind it will be given out again."""
        self._state = RaftState(settings, storage, random, applied_index)
        self._invariants = invariants.Invariants(self._state)

    # Inputs

    def tick(self, elapsed_ticks: int = 1) -> None:
        """Time passed: 1 normally, more after a pause. Give a pause in one call.

        The election timer moves by 1 a call, so that after a pause the messages that wait get a chance; leases
        and check-quorum move by all of it (Thesis §6.4.1 counts on real time).
        """
        require(elapsed_ticks > 0, "tick of {} ticks", elapsed_ticks)
        state = self._state
        state.now_ticks += elapsed_ticks
        if state.leading is None:
            election.tick_follower(state)
        else:
            commitment.tick_leader(state, state.leading, elapsed_ticks)
        self._invariants.check(state)

    def step(self, message: Message) -> None:
        """A message came in. Anything that an honest server of ours would not send is dropped and counted."""
        state = self._state
        if not is_sane(state, message):
            state.ignored_count += 1
            return
        if message.term == state.current_term or election.observe_term(state, message):
            _HANDLERS[type(message)](state, message)
        self._invariants.check(state)

    def campaign(self) -> None:
        """Try to become leader now, as if the election timeout had passed; with pre-vote when that is on."""
        election.campaign(self._state)
        self._invariants.check(self._state)

    def propose(self, data: bytes) -> tuple[int, int]:
        """Append a batch of commands; (index, term) of its entry, committed once that index is applied with that term.

        Raises `NotLeader`, `NoLeader`, `Overloaded`, or `Unavailable` while leadership is handed over; then nothing
        was appended.
        """
        return replication.propose(self._state, data)

    def propose_configuration(self, voters: Sequence[Member], learners: Sequence[Member]) -> int:
        """Change who is in the cluster to this; the index of the change's first entry (Raft §6).

        The change is over once the configuration in force is not joint and committed. Raises `NotLeader`, `NoLeader`,
        `Unavailable`, `ConfigurationInProgress` or `MembershipRefused`; then nothing was appended.
        """
        index = membership.propose_configuration(self._state, voters, learners)
        self._invariants.check(self._state)
        return index

    def request_read(self, request_id: int, lease: bool = False) -> None:
        """Ask when a linearizable read may be answered; the answer comes in `Effects.reads` or `refused_reads`.

        Any role; a follower asks its leader. `request_id` must not be in use. With `lease` a leader that holds a lease
        answers without asking anybody; give `tick` all time that passed before.
        """
        reads.request_read(self._state, request_id, lease)

    def announce_commit(self) -> None:
        """Tell followers of the commit index now, if they have nothing else to expect; for a leader only.

        Without `RaftSettings.announces_commits` the driver calls this a moment after a commit, unless new entries
        have carried the index by then.
        """
        if self._state.leading is not None:
            replication.announce_commit(self._state, self._state.leading)

    def transfer_leadership(self, target: MemberId | None = None) -> None:
        """Hand leadership to `target`, or to the most up-to-date voter (Thesis §3.10); see `Status.transfer_target`.

        Raises `NotLeader`, `NoLeader`, or `MembershipRefused` when `target` is no other voter.
        """
        transfer.transfer_leadership(self._state, target)
        self._invariants.check(self._state)

    # Reports from outside

    def persisted(self, ticket: int) -> None:
        """Step `ticket` and all before it are durable."""
        outputs.persisted(self._state, ticket)
        self._invariants.check(self._state)

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        outputs.applied(self._state, index)
        self._invariants.check(self._state)

    def unreachable(self, member_id: MemberId) -> None:
        """Messages to that member were probably lost."""
        replication.unreachable(self._state, member_id)

    def snapshot_sent(self, member_id: MemberId, ok: bool) -> None:
        """The snapshot asked for in `Effects.snapshots_to_send` was taken over by the member, or was not."""
        snapshot.snapshot_sent(self._state, member_id, ok)

    def compacted(self) -> None:
        """Storage cut its log: `LogStorage.base` moved, to at most what is applied."""
        snapshot.compacted(self._state)
        self._invariants.check(self._state)

    # Outputs

    def has_ready(self) -> bool:
        """Cheap. True when `ready` may have something; it may turn out empty for a leader."""
        return outputs.has_ready(self._state)

    def ready(self) -> Effects:
        """Everything new since the last call, exactly once."""
        effects = outputs.take(self._state)
        self._invariants.check(self._state)
        return effects

    def advance(self, effects: Effects) -> None:
        """For drivers that carry out `effects` completely before anything else: all of it is durable and applied."""
        if effects.ticket:
            self.persisted(effects.ticket)
        if effects.committed:
            self.applied(effects.committed[-1].index)

    # Looking

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def is_leader(self) -> bool:
        return self._state.leading is not None

    @property
    def leader(self) -> MemberId:
        return self._state.leader

    @property
    def current_term(self) -> int:
        return self._state.current_term

    @property
    def commit_index(self) -> int:
        return self._state.commit_index

    @property
    def last_applied(self) -> int:
        return self._state.last_applied

    @property
    def configuration(self) -> Configuration:
        """The one in force, which may not be committed yet (Raft §6)."""
        return self._state.configuration

    @property
    def configuration_index(self) -> int:
        return self._state.configuration_index

    def status(self) -> Status:
        return status.describe(self._state)

    def describe_snapshot(self, last_index: int) -> SnapshotMetadata:
        """The metadata of a snapshot of state that has applied `last_index`, at or above the log's base."""
        return snapshot.describe(self._state, last_index)

    # For harnesses

    def set_randomized_election_timeout(self, ticks: int) -> None:
        """Until the next role change draws a new one."""
        self._state.randomized_election_timeout = ticks

    def check_all(self) -> None:
        """Every invariant that one server can check on itself; slow. Raises `InvariantViolation`."""
        invariants.check_all(self._state)
