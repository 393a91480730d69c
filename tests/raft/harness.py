"""One server around one core: does exactly the driver's duty that `raftkv.raft.effects` writes down.

The disk is a queue of steps that a test can hold back, the state machine is the list of applied entries
(durable only up to what was flushed), and what the core wants sent piles up in `outbox`. A crash forgets
the queue, the unflushed state and the core; a restart builds a new core from what is left. Nothing here
decides anything about Raft, so a test that fails here fails because of the core.

Turned down: calling `RaftNode.advance` after each `ready`. It would make every write durable at once, and
the bugs worth finding live between a write and its sync.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from raftkv.raft import RaftNode, RaftSettings, Status, decode_configuration
from raftkv.raft.effects import ConfirmedRead, Effects, Leadership
from raftkv.raft.messages import (
    AppendEntries,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    decode_message,
    encode_message,
)
from raftkv.storage import MemoryLog, WalStep
from raftkv.types import Configuration, Entry, EntryKind, HardState, MemberId, Role, SnapshotMetadata
from tests.raft.words import accepted, configuration, entries_of_terms, members

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclasses.dataclass
class StateMachine:
    """Every entry applied since index 1, so that states can be compared entry by entry."""

    history: list[Entry] = dataclasses.field(default_factory=list)
    durable_index: int = 0

    @property
    def last_applied(self) -> int:
        return len(self.history)

    @property
    def commands(self) -> list[bytes]:
        return [entry.data for entry in self.history if entry.kind is EntryKind.COMMANDS]

    def flush(self) -> None:
        self.durable_index = self.last_applied

    def crash(self) -> None:
        del self.history[self.durable_index :]


class Server:
    """A core, its disk and its state machine. `seed` fixes the core's randomness."""

    def __init__(
        self,
        member_id: MemberId,
        initial: Configuration,
        *,
        entries: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        applied_index: int = 0,
        seed: int = 0,
        settings: RaftSettings | None = None,
        after_input: Callable[[Server], None] = lambda _: None,
    ) -> None:
        self.member_id = member_id
        self.initial = initial
        self.settings = settings or RaftSettings(member_id=member_id)
        self.random = random.Random(f"{seed}/{member_id}")
        self.log = MemoryLog(holds_writes=True)
        self.log.write(WalStep(SnapshotMetadata(configuration=initial), hard_state, list(entries)))
        self.log.sync()
        self.machine = StateMachine(list(entries[:applied_index]), applied_index)
        self.after_input = after_input
        self.is_disk_held = False
        self.is_apply_held = False
        self.is_crashed = False
        self.restart()

    def restart(self) -> None:
        self.unsynced: collections.deque[Effects] = collections.deque()
        self.unapplied: collections.deque[Entry] = collections.deque()
        self.staged: dict[tuple[int, int], list[Entry]] = {}
        self.outbox: list[Message] = []
        self.snapshots_to_send: list[MemberId] = []
        self.reads: list[ConfirmedRead] = []
        self.refused_reads: list[int] = []
        self.leaderships: list[Leadership] = []
        self.configurations: list[Configuration] = []
        self.handed_out: list[Effects] = []
        self.is_crashed = False
        self.node = RaftNode(self.settings, self.log, self.random, self.machine.last_applied)
        self.carry_out()

    def crash(self, keep_steps: int = 0) -> None:
        """Lose all that is not durable; `keep_steps` steps had reached the disk, unreported, when it happened."""
        for effects in list(self.unsynced)[:keep_steps]:
            self._sync_one(effects)
        self.log.crash()
        self.machine.crash()
        self.is_crashed = True
        self.unsynced.clear()
        self.unapplied.clear()
        self.outbox.clear()

    # ---- the driver's duty (effects.py, points 2 to 4)

    def carry_out(self) -> None:
        while self.node.has_ready():
            self._carry_out(self.node.ready())
        self.node.check_all()
        self.after_input(self)

    def _carry_out(self, effects: Effects) -> None:
        self.handed_out.append(effects)
        if effects.leadership is not None:
            self.leaderships.append(effects.leadership)
        if effects.configuration is not None:
            self.configurations.append(effects.configuration)
        self.outbox += effects.messages
        if effects.ticket:
            self.log.write(WalStep(effects.snapshot, effects.hard_state, effects.entries))
            self.unsynced.append(effects)
        else:
            is_empty = effects.snapshot is None and effects.hard_state is None and not effects.entries
            assert is_empty, "something to persist without a ticket"
            assert not effects.messages_after_persist, "nothing to persist, yet something waits for it"
        self.unapplied.extend(effects.committed)
        self.reads += effects.reads
        self.refused_reads += effects.refused_reads
        self.snapshots_to_send += effects.snapshots_to_send
        if not self.is_disk_held:
            self._sync()
        if not self.is_apply_held:
            self._apply()

    def sync(self, steps: int | None = None) -> None:
        """The oldest `steps` of the held steps (all when None) become durable and are reported."""
        self._sync(steps)
        self.carry_out()

    def _sync(self, steps: int | None = None) -> None:
        for _ in range(len(self.unsynced) if steps is None else min(steps, len(self.unsynced))):
            effects = self.unsynced.popleft()
            self._sync_one(effects)
            self.outbox += effects.messages_after_persist
            self.node.persisted(effects.ticket)

    def _sync_one(self, effects: Effects) -> None:
        """The log step and, for a snapshot, the state that comes with it."""
        self.log.sync(1)
        if effects.snapshot is not None:
            content = self.staged[effects.snapshot.last_index, effects.snapshot.last_term]
            self.machine.history = list(content)
            if effects.snapshot.configuration_index == 0:
                self.initial = effects.snapshot.configuration  # the cluster's first one, which no entry holds
            self.machine.flush()
            self.unapplied.clear()

    def apply(self) -> None:
        self._apply()
        self.carry_out()

    def _apply(self) -> None:
        while self.unapplied:
            entry = self.unapplied.popleft()
            assert entry.index == self.machine.last_applied + 1, "committed entries must come in order, each once"
            is_durable = entry.index <= self.log.last_index and (
                entry.index <= self.log.base.last_index or self.log.term(entry.index) == entry.term
            )
            assert is_durable, f"{entry} was given out to be applied before it was durable here"
            self.machine.history.append(entry)
        self.node.applied(self.machine.last_applied)

    # ---- inputs

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.node.tick()
            self.carry_out()

    def campaign(self) -> None:
        self.node.campaign()
        self.carry_out()

    def step(self, message: Message) -> None:
        """Through the codec, as on the wire."""
        self.node.step(decode_message(encode_message(message)))
        self.carry_out()

    def propose(self, data: bytes) -> int:
        index, _ = self.node.propose(data)
        self.carry_out()
        return index

    def propose_configuration(self, voters: Iterable[MemberId], learners: Iterable[MemberId] = ()) -> int:
        index = self.node.propose_configuration(members(voters), members(learners))
        self.carry_out()
        return index

    def request_read(self, request_id: int, lease: bool = False) -> None:
        self.node.request_read(request_id, lease)
        self.carry_out()

    def transfer_leadership(self, target: MemberId | None = None) -> None:
        self.node.transfer_leadership(target)
        self.carry_out()

    def unreachable(self, member_id: MemberId) -> None:
        self.node.unreachable(member_id)
        self.carry_out()

    def snapshot_sent(self, member_id: MemberId, ok: bool) -> None:
        self.node.snapshot_sent(member_id, ok)
        self.carry_out()

    def compact(self, last_index: int | None = None) -> None:
        """Flush the state, then cut the log up to `last_index` (all that is applied when None)."""
        self.machine.flush()
        self.log.compact(self.snapshot_metadata(last_index))
        self.node.compacted()
        self.carry_out()

    def snapshot_metadata(self, last_index: int | None = None) -> SnapshotMetadata:
        """What the applied entries say; the core must describe the same snapshot in the same words."""
        history = self.machine.history[:last_index]
        if not history:
            return SnapshotMetadata(configuration=self.initial)
        in_force, configuration_index = self.initial, 0
        for entry in history:
            if entry.kind is EntryKind.CONFIGURATION:
                in_force, configuration_index = decode_configuration(entry.data), entry.index
        metadata = SnapshotMetadata(history[-1].index, history[-1].term, in_force, configuration_index)
        assert self.node.describe_snapshot(metadata.last_index) == metadata
        return metadata

    def install_snapshot_message(self, recipient: MemberId) -> InstallSnapshot:
        return InstallSnapshot(self.status.current_term, self.member_id, recipient, self.snapshot_metadata())

    def stage(self, snapshot: SnapshotMetadata, history: Sequence[Entry]) -> None:
        """The chunks have come in, outside the core."""
        self.staged[snapshot.last_index, snapshot.last_term] = list(history[: snapshot.last_index])

    # ---- what a test looks at

    @property
    def status(self) -> Status:
        return self.node.status()

    @property
    def is_installing(self) -> bool:
        """A snapshot was decided on but is not durable yet, so the state machine is still the old one."""
        return any(effects.snapshot is not None for effects in self.unsynced)

    @property
    def role(self) -> Role:
        return self.status.role

    @property
    def term(self) -> int:
        return self.status.current_term

    @property
    def commit_index(self) -> int:
        return self.status.commit_index

    def durable_entries(self) -> list[Entry]:
        first = self.log.base.last_index + 1
        return self.log.entries(first, self.log.last_index, 1 << 40) if self.log.last_index >= first else []

    def log_terms(self) -> list[int]:
        return [entry.term for entry in self.durable_entries()]

    def take(self, kind: type[AnyMessage]) -> list[AnyMessage]:
        """All messages of one kind waiting to be sent, removed from the outbox; the others stay."""
        found: list[AnyMessage] = [message for message in self.outbox if isinstance(message, kind)]
        self.outbox = [message for message in self.outbox if not isinstance(message, kind)]
        return found

    def take_one(self, kind: type[AnyMessage], to: MemberId | None = None) -> AnyMessage:
        """The only message of that kind (to that member); anything else is a failure of the test."""
        found = [message for message in self.take(kind) if to in (None, message.recipient)]
        assert len(found) == 1, f"expected one {kind.__name__} to {to}, got {found}"
        return found[0]

    def take_last(self, kind: type[AnyMessage], to: MemberId) -> AnyMessage:
        """The newest message of that kind to that member."""
        found = [message for message in self.take(kind) if message.recipient == to]
        assert found, f"no {kind.__name__} to {to}"
        return found[-1]

    # ---- stories told once

    def run_out_election_timeout(self) -> None:
        """Ticks for the longest timeout that the core could have drawn."""
        for _ in range(2 * self.settings.election_timeout_ticks):
            self.tick()
            if self.role is not Role.FOLLOWER:
                return

    def win_election(self, voters: Iterable[MemberId]) -> None:
        """Campaign, with every one of `voters` granting both the pre-vote and the vote."""
        self.campaign()
        for question in self.take(PreVote):
            if question.recipient in voters:
                self.step(PreVoteReply(self.term, question.recipient, self.member_id, question.term, True))
        for request in self.take(RequestVote):
            if request.recipient in voters:
                self.step(RequestVoteReply(request.term, request.recipient, self.member_id, True))
        assert self.role is Role.LEADER

    def win_election_slowly(self, voters: Iterable[MemberId]) -> None:
        """As `win_election`, with a disk that is held: each step is made durable by hand, the last write excepted."""
        self.campaign()
        for question in self.take(PreVote):
            self.step(PreVoteReply(self.term, question.recipient, self.member_id, question.term, True))
        self.sync()
        for request in self.take(RequestVote):
            if request.recipient in voters:
                self.step(RequestVoteReply(request.term, request.recipient, self.member_id, True))
        assert self.role is Role.LEADER

    def accept_appends(self, followers: Iterable[MemberId]) -> None:
        """Each of `followers` takes everything that was sent to it so far; what was sent to others stays."""
        wanted = set(followers)
        requests = [m for m in self.outbox if isinstance(m, AppendEntries) and m.recipient in wanted]
        self.outbox = [message for message in self.outbox if message not in requests]
        for request in requests:
            if self.role is Role.LEADER:
                self.step(accepted(request))


def alone(
    member_id: MemberId = 1,
    voters: Iterable[MemberId] = (1, 2, 3),
    *,
    learners: Iterable[MemberId] = (),
    log: Sequence[int] = (),
    term: int = 0,
    voted_for: MemberId = 0,
    applied_index: int = 0,
    seed: int = 0,
    **knobs: object,
) -> Server:
    """A server whose peers are played by the test. `log` is given as terms; `term` defaults to the last of them."""
    hard_state = HardState(term or (log[-1] if log else 0), voted_for)
    settings = RaftSettings(member_id=member_id, **knobs)  # type: ignore[arg-type]
    return Server(
        member_id,
        configuration(voters, learners),
        entries=entries_of_terms(log),
        hard_state=hard_state,
        applied_index=applied_index,
        seed=seed,
        settings=settings,
    )


def leader_alone(
    member_id: MemberId = 1,
    voters: Iterable[MemberId] = (1, 2, 3),
    **more: object,
) -> Server:
    """A fresh leader, elected by everyone, whose first AppendEntries are still in its outbox."""
    voters = tuple(voters)
    server = alone(member_id, voters, **more)  # type: ignore[arg-type]
    server.win_election(voters)
    return server
