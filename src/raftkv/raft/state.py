"""The state of one server (Raft figure 2), and the few primitives that every decision shares.

Nothing here decides. The decisions live one subject a file and take this state as their first argument:
election, follower, replication, commitment, membership, reads, snapshot, transfer. Imports between
them point one way, so that none of them can grow into the one huge file.

Turned down: one class with a method per message. Every Raft that began so has a file of thousands of lines now.
"""

from __future__ import annotations

from random import Random

from raftkv.errors import NoLeader, NotLeader, Unavailable, require
from raftkv.raft.configurations import ConfigurationHistory, decode_configuration
from raftkv.raft.effects import ConfirmedRead
from raftkv.raft.leading import Leading
from raftkv.raft.log import LogStorage, RaftLog
from raftkv.raft.messages import Message
from raftkv.raft.quorum import Voters
from raftkv.raft.settings import RaftSettings
from raftkv.types import NOBODY, Configuration, Entry, EntryKind, MemberId, Role


class RaftState:
    """Fields in the order of figure 2: persistent, volatile, leader's; then timers and outputs."""

    __slots__ = (
        "cause",
        "commit_index",
        "configuration_changed",
        "configurations",
        "current_term",
        "election_elapsed",
        "forwarded_reads",
        "handed_out_index",
        "hard_state_changed",
        "hard_state_ticket",
        "held",
        "ignored_count",
        "is_voter",
        "last_applied",
        "leader",
        "leading",
        "log",
        "member_id",
        "messages",
        "needs_flush",
        "now_ticks",
        "random",
        "randomized_election_timeout",
        "reads",
        "refused_reads",
        "replies",
        "role",
        "settings",
        "snapshots_to_send",
        "told_leadership",
        "vote_hold_until",
        "voted_for",
        "voters",
        "votes",
    )

    def __init__(self, settings: RaftSettings, storage: LogStorage, random: Random, applied_index: int) -> None:
        self.settings = settings
        self.member_id: MemberId = settings.member_id
        self.random = random

        self.current_term = storage.hard_state.current_term
        self.voted_for: MemberId = storage.hard_state.voted_for
        self.log = RaftLog(storage, settings.tail_max_bytes)
        self.configurations = ConfigurationHistory(storage.base, storage.configurations())
        self.voters = Voters.of(self.configurations.current)
        self.is_voter = self.member_id in self.voters.all

        applied_index = max(applied_index, self.log.base_index)
        require(
            applied_index <= self.log.last_index,
            "the state machine has applied {}, but the log ends at {}: entries were lost",
            applied_index,
            self.log.last_index,
        )
        self.commit_index = applied_index
        self.last_applied = applied_index
        self.handed_out_index = applied_index
        """Up to here entries were given out to be applied."""
        self.role = Role.FOLLOWER
        self.cause = "it has started"
        """Why it has its role, in words for people."""
        self.leader: MemberId = NOBODY
        self.votes: dict[MemberId, bool] = {}
        self.leading: Leading | None = None
        self.forwarded_reads: dict[int, int] = {}
        """request id -> the tick it was sent to the leader."""

        self.now_ticks = 0
        """Ticks since the start; moves by all that elapsed, also over a pause."""
        self.election_elapsed = 0
        """Ticks since a leader was heard or a vote given; moves by at most 1 a `tick`."""
        self.randomized_election_timeout = 0
        self.draw_election_timeout()
        # A lease counts on followers refusing votes for an election timeout after they answered (Thesis §6.4.1).
        # A restart forgets when that was, so a server that took part in a term first waits it out.
        # See also `election.promise_no_vote`.
        may_owe_lease = settings.lease_reads and self.current_term > 0 and self.voters.all != (self.member_id,)
        self.vote_hold_until = settings.election_timeout_ticks if may_owe_lease else 0

        self.ignored_count = 0
        self.needs_flush = False
        """The leader may have something to send; decided once per `ready`, so that proposals share messages."""
        self.hard_state_changed = False
        self.hard_state_ticket = 0
        self.configuration_changed = False
        self.messages: list[Message] = []
        self.replies: list[Message] = []
        """To be sent once everything decided so far is durable."""
        self.held: list[tuple[int, Message]] = []
        """(ticket, reply) that wait for a step that was handed out before them."""
        self.reads: list[ConfirmedRead] = []
        self.refused_reads: list[int] = []
        self.snapshots_to_send: list[MemberId] = []
        self.told_leadership = (self.role, self.current_term, self.leader)

    # Term, vote, timers

    def set_term(self, term: int, voted_for: MemberId) -> None:
        self.current_term = term
        self.voted_for = voted_for
        self.hard_state_changed = True

    @property
    def is_hard_state_durable(self) -> bool:
        return not self.hard_state_changed and self.log.persisted_ticket >= self.hard_state_ticket

    def draw_election_timeout(self) -> None:
        """A new one in [election_timeout_ticks, 2 * election_timeout_ticks), so that split votes end (Raft §5.2)."""
        least = self.settings.election_timeout_ticks
        self.randomized_election_timeout = self.random.randrange(least, 2 * least)

    # Log and configuration

    @property
    def configuration(self) -> Configuration:
        return self.configurations.current

    @property
    def configuration_index(self) -> int:
        return self.configurations.index

    def append(self, entries: tuple[Entry, ...] | list[Entry]) -> None:
        """Put `entries` at the end of the log; a configuration among them is in force at once (Raft §6)."""
        self.log.append(entries)
        changed = False
        for entry in entries:
            if entry.kind == EntryKind.CONFIGURATION:
                self.configurations.push(entry.index, decode_configuration(entry.data))
                changed = True
        if changed:
            self.adopt_configuration()

    def truncate_from(self, index: int) -> None:
        """Drop a suffix; a configuration in it is rolled back (Raft §6)."""
        self.log.truncate_from(index, self.commit_index)
        if self.configurations.truncate_from(index):
            self.adopt_configuration()

    def adopt_configuration(self) -> None:
        """The configuration in force changed."""
        self.voters = Voters.of(self.configurations.current)
        self.is_voter = self.member_id in self.voters.all
        self.configuration_changed = True

    # Outputs

    @property
    def leadership_changed(self) -> bool:
        return self.told_leadership != (self.role, self.current_term, self.leader)

    # Refusals

    def require_leading(self) -> Leading:
        """Raises `NotLeader` or `NoLeader`."""
        if self.leading is not None:
            return self.leading
        if self.leader == NOBODY:
            raise NoLeader("no leader is known; an election may be under way, try again")
        member = self.configuration.members().get(self.leader)
        raise NotLeader(member.node_id, member.http_address) if member else NotLeader()

    def require_accepting(self) -> Leading:
        """Like `require_leading`; also raises `Unavailable` while leadership is handed over (Thesis §3.10)."""
        leading = self.require_leading()
        if leading.transfer_target != NOBODY:
            raise Unavailable("leadership is being handed to another member, try again")
        return leading
