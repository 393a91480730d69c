"""What must hold at every moment, seen from outside and across nodes (Raft figure 3, Thesis §3.6).

Kept as facts that were ever true, not as a comparison of the nodes alive now: neither a crash nor a truncation may hide
a violation. Each entry is looked at once, so a check after every single callback stays cheap.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

from raftkv.raft import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply, TimeoutNow
from raftkv.sim.answers import Answers
from raftkv.sim.facts import Facts, OnDisk, Seen
from raftkv.sim.leaderships import Leaderships
from raftkv.sim.limits import check_window
from raftkv.sim.memberships import Memberships, show
from raftkv.sim.readings import Readings
from raftkv.sim.states import States
from raftkv.storage import WalStep
from raftkv.types import NOBODY, Configuration, Entry, MemberId, Role

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode
    from raftkv.sim.trace import Trace


DEEP_CHECK_STEPS = 199
"""So seldom each core is asked to check all that it can by itself (`raft.invariants.check_all`)."""


class Violation(NamedTuple):
    """`at_s` is when it was noticed."""

    at_s: float
    text: str


class SafetyViolation(Exception):
    """Ends the run; `text` says what does not hold."""


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
        self.memberships = Memberships(self.violation)
        self.leaderships = Leaderships(self)
        self.answers = Answers(self)
        self.readings = Readings(self.violation)
        self.states = States(self.violation)

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
        state = wal.hard_state
        self._seen[node.node_id] = Seen(term=state.current_term)
        self.facts[node.cluster_id].campaigns.add(state.current_term)
        self.answers.woke(node)
        self.states.opened(node)
        self.must(state.current_term >= promised.term, f"{node.node_id} forgot term {promised.term}")
        vote = promised.vote_of.get(state.current_term)
        self.must(
            vote is None or vote == state.voted_for, f"{node.node_id} forgot its vote of term {state.current_term}"
        )
        before, now = (promised.last_term, promised.last_index), (wal.term(wal.last_index), wal.last_index)
        self.must(
            now >= before or not promised.is_whole,
            f"{node.node_id} lost durable entries: (term, index) {before} before, {now} now",
        )
        self._check_recovered(node)

    def _check_recovered(self, node: SimNode) -> None:
        """What recovery found is what was once written, in that order."""
        wal, entry_at = node.replica.log.wal, self.facts[node.cluster_id].entry_at
        before = wal.base.last_term
        for index in range(wal.base.last_index + 1, wal.last_index + 1):
            term = wal.term(index)
            known = entry_at.get((index, term))
            if known is None or known[0] not in (before, -1):
                self.violation(f"{node.node_id} recovered entry {index} of term {term}, which was not written there")
                return
            before = term

    def exchanging(self, node: SimNode) -> None:
        """Another log takes the place of the node's (a snapshot, another cluster): from here on either may count."""
        promised = self.on_disk[node.member.member_id]
        promised.last_index = promised.last_term = 0

    def ended(self, node: SimNode) -> None:
        if node.has_replica and not node.is_exchanging and node.replica.own.member_id == node.member.member_id:
            promised, wal = self.on_disk[node.member.member_id], node.replica.log.wal
            promised.last_index, promised.last_term = wal.last_index, wal.term(wal.last_index)

    def configuration(self, node: SimNode, configuration: Configuration) -> None:
        self.trace.event(node.node_id, f"voters {show(configuration)}")

    def written(self, node: SimNode, step: WalStep) -> None:
        """Log Matching (Raft §5.3): same index and term, same entry and same predecessor; by induction, same log."""
        if not step.entries:
            return
        facts = self.facts[node.cluster_id]
        log, entry_at = node.replica.raft._state.log, facts.entry_at
        self.memberships.written(node, list(step.entries), facts.commit_index, facts.term_of_commit())
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
                self.leaderships.vote_given(node, message)
                is_kept = durable.current_term > message.term or durable.voted_for == message.recipient
                self.must(is_kept, f"{name} left before the vote was durable")
            elif isinstance(message, RequestVote):
                first = promised.vote_of.setdefault(message.term, message.sender)
                self.must(first == message.sender, f"{name} campaigns after a vote for another")
            elif isinstance(message, AppendEntriesReply):
                self.readings.answered(message)
                self._acknowledges(node, message, name)
            elif isinstance(message, AppendEntries) and message.entries:
                check_window(node, message, self.must)
        elif isinstance(message, TimeoutNow):
            self.answers.handed_over(node, message.term)

    def _acknowledges(self, node: SimNode, message: AppendEntriesReply, name: str) -> None:
        wal = node.replica.log.wal
        if message.success and wal.hard_state.current_term == message.term:
            self.must(wal.last_index >= message.match_index, f"{name} acknowledges what is not durable")

    # After every callback

    def after_step(self, node: SimNode) -> None:
        self.step_count += 1
        state = node.replica.raft._state
        seen = self._seen[node.node_id]
        term, commit_index, applied, role = state.current_term, state.commit_index, state.last_applied, state.role
        facts = self.facts[node.cluster_id]
        if term != seen.term:
            self.must(term > seen.term, f"{node.node_id}: term fell from {seen.term} to {term}")
            seen.term, seen.role, seen.leader = term, Role.FOLLOWER, NOBODY
            self.leaderships.new_term(node, facts, term, role)
        if role is not seen.role:
            if role is Role.LEADER:
                self._new_leader(node, term)
            seen.role = role
        if state.leader != seen.leader:
            seen.leader = state.leader
            if seen.leader != NOBODY:
                self.leaderships.leader_known(node, facts, state)
        if commit_index != seen.commit_index:
            self.must(commit_index > seen.commit_index, f"{node.node_id}: commit index fell from {seen.commit_index}")
            self._committed(node, max(seen.commit_index, state.log.base_index) + 1, commit_index, role)
            seen.commit_index = commit_index
        if applied != seen.last_applied:
            self.must(
                seen.last_applied < applied <= commit_index, f"{node.node_id}: applied {applied} of {commit_index}"
            )
            is_durable = node.replica.machine.last_applied <= node.replica.log.wal.last_index
            self.must(is_durable, f"{node.node_id} applied {applied}, which is not durable here")
            seen.last_applied = applied
            self.states.applied(node)
        if not state.log.has_unwritten and not node.replica.driver.is_installing and not node.is_exchanging:
            self.memberships.check(node)
        self.readings.check(node, state)
        self.leaderships.look(node, state)
        if self.step_count % DEEP_CHECK_STEPS == 0:
            node.run_soon(node.replica.raft.check_all)

    def _new_leader(self, node: SimNode, term: int) -> None:
        facts = self.facts[node.cluster_id]
        first = facts.leader_of_term.setdefault(term, node.member.member_id)
        self.must(first == node.member.member_id, f"election safety: term {term} has a second leader, {node.node_id}")
        self.leader_count += 1
        self.leaderships.elected(node, self.memberships.in_force(node), term)
        log = node.replica.raft._state.log
        self.must(log.last_term == term, f"{node.node_id} leads term {term} without an entry of its own (Raft §8)")
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
                again = facts.note(known)
                self.must(not again, f"committed twice: {again[:3]}")
            self.must(
                known.term == term,
                f"{node.node_id} commits {index} of term {term}, elsewhere it was committed in term {known.term}",
            )
        facts.commit_index = max(facts.commit_index, last)
        if role is Role.LEADER:
            term = node.replica.raft.current_term
            self.must(
                log.term(last) == term, f"{node.node_id} commits entry {last} of an older term than {term} by counting"
            )
            self._durable_on_majority(node, last)

    def _durable_on_majority(self, node: SimNode, index: int) -> None:
        """Raft §5.3, §6: a leader's commit stands on the disks of a majority of each set of voters."""
        raft = node.replica.raft
        is_written = raft.configuration_index <= raft._state.log.handed_index
        configuration = self.memberships.in_force(node) if is_written else raft.configuration
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
