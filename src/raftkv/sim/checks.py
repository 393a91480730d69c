"""What must hold at every moment, seen from outside and across nodes (Raft figure 3, Thesis §3.6).

Kept as facts that were ever true, not as a comparison of the nodes alive now: neither a crash nor a truncation may hide
a violation. Each entry is looked at once, so a check after every single callback stays cheap.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from raftkv.kv import Put, decode_batch
from raftkv.raft import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raftkv.storage import WalStep
from raftkv.types import Configuration, Entry, EntryKind, MemberId, Role

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode
    from raftkv.sim.trace import Trace


class Violation(NamedTuple):
    """`at_s` is when it was noticed."""

    at_s: float
    text: str


class SafetyViolation(Exception):
    """Ends the run; `text` says what does not hold."""


@dataclasses.dataclass
class Seen:
    """What one process showed last."""

    term: int = 0
    commit_index: int = 0
    last_applied: int = 0
    role: Role = Role.FOLLOWER


@dataclasses.dataclass
class OnDisk:
    """What one identity has ever promised: it must survive every process."""

    term: int = 0
    vote_of: dict[int, MemberId] = dataclasses.field(default_factory=dict)
    last_index: int = 0
    """Of its log when its process ended; what is running is asked itself."""
    is_whole: bool = True
    """False once the directory was damaged on purpose."""


class Facts:
    """What was ever true of one cluster."""

    def __init__(self) -> None:
        self.leader_of_term: dict[int, MemberId] = {}
        self.entry_at: dict[tuple[int, int], tuple[int, Entry]] = {}
        """(index, term) -> (term of the entry before, entry), wherever it was written first."""
        self.committed: dict[int, Entry] = {}
        self.commit_index = 0
        self.values: set[bytes] = set()
        """All that were ever put by a committed command."""

    def term_of_commit(self) -> int:
        entry = self.committed.get(self.commit_index)
        return entry.term if entry is not None else 0

    def note(self, entry: Entry) -> None:
        self.committed[entry.index] = entry
        if entry.kind is EntryKind.COMMANDS:
            self.values.update(command.value for command in decode_batch(entry.data) if isinstance(command, Put))


class Checks:
    def __init__(self, trace: Trace) -> None:
        self.violations: list[Violation] = []
        self.step_count = 0
        self.leader_count = 0
        self.trace = trace
        self.facts: dict[int, Facts] = collections.defaultdict(Facts)
        """By cluster id: a fresh node is a cluster of its own until it is joined."""
        self._seen: dict[str, Seen] = {}
        self.on_disk: dict[MemberId, OnDisk] = {}

    def violation(self, text: str, error: BaseException | None = None) -> None:
        self.violations.append(Violation(self.trace._world.now_s, text))
        self.trace.event("", f"VIOLATION: {text}")
        if error is not None and not isinstance(error, SafetyViolation):
            self.errors = [*getattr(self, "errors", []), error]

    def must(self, condition: object, text: str) -> None:
        if not condition:
            self.violation(text)

    # What nodes tell

    def new_identity(self, node: SimNode) -> None:
        self.on_disk[node.member.member_id] = OnDisk()

    def opened(self, node: SimNode) -> None:
        """A process stands on what it found: nothing of what the one before had promised may be missing (Raft §5.2)."""
        promised = self.on_disk.setdefault(node.member.member_id, OnDisk())
        wal = node.replica.log.wal
        self._seen[node.node_id] = Seen()
        state = wal.hard_state
        self.must(state.current_term >= promised.term, f"{node.node_id} forgot term {promised.term}")
        vote = promised.vote_of.get(state.current_term)
        self.must(
            vote is None or vote == state.voted_for, f"{node.node_id} forgot its vote of term {state.current_term}"
        )
        self.must(
            wal.last_index >= promised.last_index or not promised.is_whole,
            f"{node.node_id} lost durable entries: {promised.last_index} before, {wal.last_index} now",
        )

    def exchanging(self, node: SimNode) -> None:
        """Another log takes the place of the node's (a snapshot, another cluster): from here on either may count."""
        self.on_disk[node.member.member_id].last_index = 0

    def ended(self, node: SimNode) -> None:
        if node.has_replica and not node.is_exchanging and node.replica.own.member_id == node.member.member_id:
            self.on_disk[node.member.member_id].last_index = node.replica.log.wal.last_index

    def configuration(self, node: SimNode, configuration: Configuration) -> None:
        names = ",".join(m.node_id for m in configuration.voters)
        joint = f" from {','.join(m.node_id for m in configuration.voters_outgoing)}" if configuration.is_joint else ""
        learners = "".join(f" +{m.node_id}" for m in configuration.learners)
        self.trace.event(node.node_id, f"voters {names}{joint}{learners}")

    def written(self, node: SimNode, step: WalStep) -> None:
        """Log Matching (Raft §5.3): same index and term, same entry and same predecessor; by induction, same log."""
        if not step.entries:
            return
        log, entry_at = node.replica.raft._state.log, self.facts[node.cluster_id].entry_at
        first = step.entries[0]
        before = log.term(first.index - 1) if first.index - 1 >= log.base_index else -1
        for entry in step.entries:
            known = entry_at.get((entry.index, entry.term))
            if known is None:
                entry_at[entry.index, entry.term] = (before, entry)
            elif known[1] != entry or (before >= 0 and known[0] >= 0 and known[0] != before):
                self.violation(
                    f"log matching: {node.node_id} holds {_show(entry)} behind term {before}, "
                    f"elsewhere it is {_show(known[1])} behind term {known[0]}"
                )
            before = entry.term

    def sent(self, node: SimNode, message: Message) -> None:
        """What a message claims must be durable at its sender when it leaves (Raft figure 2, Thesis §10.2.1)."""
        if isinstance(message, RequestVote | RequestVoteReply | AppendEntriesReply | AppendEntries):
            wal = node.replica.log.wal
            durable = wal.hard_state
            promised = self.on_disk[node.member.member_id]
            promised.term = max(promised.term, durable.current_term)
            name = f"{node.node_id}: {type(message).__name__} of term {message.term}"
            self.must(durable.current_term >= message.term, f"{name} left before its term was durable")
            if isinstance(message, RequestVoteReply) and message.vote_granted:
                first = promised.vote_of.setdefault(message.term, message.recipient)
                self.must(first == message.recipient, f"{name} votes a second time")
                is_kept = durable.current_term > message.term or durable.voted_for == message.recipient
                self.must(is_kept, f"{name} left before the vote was durable")
            elif isinstance(message, RequestVote):
                first = promised.vote_of.setdefault(message.term, message.sender)
                self.must(first == message.sender, f"{name} campaigns after a vote for another")
            elif isinstance(message, AppendEntriesReply) and message.success and durable.current_term == message.term:
                self.must(wal.last_index >= message.match_index, f"{name} acknowledges what is not durable")

    # After every callback

    def after_step(self, node: SimNode) -> None:
        self.step_count += 1
        state = node.replica.raft._state
        seen = self._seen[node.node_id]
        term, commit_index, applied, role = state.current_term, state.commit_index, state.last_applied, state.role
        if term != seen.term:
            self.must(term > seen.term, f"{node.node_id}: term fell from {seen.term} to {term}")
            seen.term, seen.role = term, Role.FOLLOWER
        if role is not seen.role:
            if role is Role.LEADER:
                self._new_leader(node, term)
            seen.role = role
        if commit_index != seen.commit_index:
            self.must(commit_index > seen.commit_index, f"{node.node_id}: commit index fell from {seen.commit_index}")
            self._committed(node, max(seen.commit_index, state.log.base_index) + 1, commit_index, role)
            seen.commit_index = commit_index
        if applied != seen.last_applied:
            self.must(
                seen.last_applied < applied <= commit_index, f"{node.node_id}: applied {applied} of {commit_index}"
            )
            seen.last_applied = applied

    def _new_leader(self, node: SimNode, term: int) -> None:
        facts = self.facts[node.cluster_id]
        first = facts.leader_of_term.setdefault(term, node.member.member_id)
        self.must(first == node.member.member_id, f"election safety: term {term} has a second leader, {node.node_id}")
        self.leader_count += 1
        log = node.replica.raft._state.log
        self.must(
            log.last_index >= facts.commit_index or term < facts.term_of_commit(),
            f"leader completeness: {node.node_id} leads term {term} with {log.last_index} entries, "
            f"{facts.commit_index} are committed",
        )
        for index in range(max(log.base_index + 1, 1), min(log.last_index, facts.commit_index) + 1):
            entry = facts.committed.get(index)
            if entry is not None and entry.term < term and log.term(index) != entry.term:
                self.violation(f"leader completeness: {node.node_id} leads term {term} without {_show(entry)}")
                return

    def _committed(self, node: SimNode, first: int, last: int, role: Role) -> None:
        """State Machine Safety (Raft §5.4.3): what one calls committed at an index is committed there for all."""
        if first > last:
            return
        log, facts = node.replica.raft._state.log, self.facts[node.cluster_id]
        for index in range(first, last + 1):
            term = log.term(index)
            known = facts.committed.get(index)
            if known is None:
                found = facts.entry_at.get((index, term))
                if found is None:
                    self.violation(f"{node.node_id} commits {index} of term {term}, which nobody ever wrote")
                    return
                known = found[1]
                facts.note(known)
            self.must(
                known.term == term,
                f"{node.node_id} commits {index} of term {term}, elsewhere it was committed in term {known.term}",
            )
        facts.commit_index = max(facts.commit_index, last)
        if role is Role.LEADER:
            self._durable_on_majority(node, last)

    def _durable_on_majority(self, node: SimNode, index: int) -> None:
        """Raft §5.3, §6: a leader's commit stands on the disks of a majority of each set of voters."""
        configuration = node.replica.raft.configuration
        entry = self.facts[node.cluster_id].committed[index]
        for voters in (configuration.voters, configuration.voters_outgoing):
            holding = sum(self._holds(node, voter.member_id, index, entry.term) for voter in voters)
            self.must(
                not voters or holding > len(voters) // 2,
                f"{node.node_id} commits {_show(entry)}, durable on {holding} of {len(voters)} voters",
            )

    def _holds(self, node: SimNode, member_id: MemberId, index: int, term: int) -> bool:
        holder = node.cluster.network.node_of(member_id)
        if holder is None:
            return False
        if not holder.is_running or not holder.has_replica:
            return self.on_disk[member_id].last_index >= index or self.on_disk[member_id].last_index == 0
        wal = holder.replica.log.wal
        if index <= wal.base.last_index:
            return True
        return index <= wal.last_index and wal.term(index) == term


def _show(entry: Entry) -> str:
    return f"entry {entry.index} of term {entry.term}"
