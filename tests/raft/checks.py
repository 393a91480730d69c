"""What must hold across a whole cluster at every moment (Raft figure 3), checked from what servers show.

Election Safety, Log Matching, Leader Completeness and State Machine Safety are kept as facts ever seen,
not as a comparison of the servers alive now: a crash or a truncation must not hide a violation. Each
entry is looked at once, so a check after every single step stays cheap.
"""

from __future__ import annotations

import dataclasses

from raftkv.raft.messages import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raftkv.types import Entry, MemberId, Role
from tests.raft.harness import Server


class SafetyViolation(AssertionError):
    """One of the paper's properties does not hold."""


def must(condition: object, text: str) -> None:
    if not condition:
        raise SafetyViolation(text)


@dataclasses.dataclass
class Seen:
    """What one server showed last; a restart begins anew, as only durable things must survive it."""

    term: int = 0
    commit_index: int = 0
    last_applied: int = 0
    history_count: int = 0
    effects_count: int = 0


class ClusterChecks:
    def __init__(self) -> None:
        self.leader_of_term: dict[int, MemberId] = {}
        self.predecessor: dict[tuple[int, int], tuple[int, Entry]] = {}
        self.committed_term: dict[int, int] = {}
        """index -> term of the entry that some server called committed."""
        self.committed_in: dict[int, int] = {}
        """index -> the earliest `current_term` of a server that called it committed."""
        self.applied: dict[int, Entry] = {}
        self.vote_of: dict[tuple[MemberId, int], MemberId] = {}
        self.durable_term: dict[MemberId, int] = {}
        self.seen: dict[MemberId, Seen] = {}

    @property
    def commit_index(self) -> int:
        """The highest that any server ever showed."""
        return max(self.committed_term, default=0)

    def restarted(self, server: Server) -> None:
        self.seen[server.member_id] = Seen()

    def after_step(self, server: Server) -> None:
        seen = self.seen.setdefault(server.member_id, Seen())
        status = server.status
        name = f"server {server.member_id}"
        for effects in server.handed_out[seen.effects_count :]:
            self._log_matching(server, effects.entries)
        seen.effects_count = len(server.handed_out)
        self._durable_term_never_falls(server)

        must(status.current_term >= seen.term, f"{name}: term fell from {seen.term} to {status.current_term}")
        must(status.commit_index >= seen.commit_index, f"{name}: commit index fell from {seen.commit_index}")
        must(status.last_applied >= seen.last_applied, f"{name}: last_applied fell from {seen.last_applied}")
        must(status.last_applied <= status.commit_index, f"{name}: applied {status.last_applied} before its commit")
        if status.role is Role.LEADER:
            self._election_safety(server, status.current_term)
        self._committed(server, range(seen.commit_index + 1, status.commit_index + 1))
        self._state_machine_safety(server, seen)
        seen.term, seen.commit_index = status.current_term, status.commit_index
        seen.last_applied = status.last_applied

    def _election_safety(self, server: Server, term: int) -> None:
        if term not in self.leader_of_term:
            self.leader_of_term[term] = server.member_id
            self._leader_completeness(server, term)
        first = self.leader_of_term[term]
        must(first == server.member_id, f"term {term} has two leaders: {first} and {server.member_id}")

    def _leader_completeness(self, server: Server, term: int) -> None:
        """Raft §5.4: an entry committed in an earlier term is in the log of every later leader."""
        for index, entry_term in self.committed_term.items():
            if self.committed_in[index] < term and index > server.log.base.last_index:
                held_term = term_at(server, index)
                must(
                    held_term == entry_term,
                    f"leader {server.member_id} of {term} holds {index}@{held_term}, committed was @{entry_term}",
                )

    def _log_matching(self, server: Server, entries: list[Entry]) -> None:
        """Raft §5.3: same index and term, same entry and same predecessor; by induction, same log up to there."""
        for entry in entries:
            before = term_at(server, entry.index - 1)
            if before is None:
                continue
            known = self.predecessor.setdefault((entry.index, entry.term), (before, entry))
            must(
                known == (before, entry),
                f"server {server.member_id}: {entry} follows {before}, elsewhere {known[1]} follows {known[0]}",
            )

    def _committed(self, server: Server, indexes: range) -> None:
        """Once committed, always the same (Raft figure 3)."""
        for index in indexes:
            term = term_at(server, index)
            if term is None:
                continue
            known = self.committed_term.setdefault(index, term)
            must(known == term, f"server {server.member_id} commits term {term} at {index}, elsewhere it was {known}")
            self.committed_in[index] = min(server.term, self.committed_in.get(index, server.term))

    def _state_machine_safety(self, server: Server, seen: Seen) -> None:
        """Raft §5.4.3: no two servers apply different entries at one index."""
        history = server.machine.history
        for entry in history[seen.history_count :]:
            known = self.applied.setdefault(entry.index, entry)
            must(known == entry, f"server {server.member_id} applied {entry}, another applied {known}")
        seen.history_count = len(history)

    def _durable_term_never_falls(self, server: Server) -> None:
        term = server.log.hard_state.current_term
        before = self.durable_term.setdefault(server.member_id, 0)
        must(term >= before, f"server {server.member_id}: durable term fell from {before} to {term}")
        self.durable_term[server.member_id] = term

    def sent(self, server: Server, message: Message) -> None:
        """What a message claims must be durable at its sender when it leaves (Raft figure 2)."""
        durable = server.log.hard_state
        name = f"server {server.member_id}: {message}"
        if isinstance(message, RequestVote | RequestVoteReply | AppendEntriesReply | AppendEntries):
            must(durable.current_term >= message.term, f"{name} left before its term was durable")
        if isinstance(message, RequestVoteReply) and message.vote_granted:
            first = self.vote_of.setdefault((server.member_id, message.term), message.recipient)
            must(first == message.recipient, f"{name}: already voted for {first} in that term")
            is_remembered = durable.current_term > message.term or durable.voted_for == message.recipient
            must(is_remembered, f"{name} left before the vote was durable")
        if isinstance(message, AppendEntriesReply) and message.success and durable.current_term == message.term:
            must(server.log.last_index >= message.match_index, f"{name} acknowledges entries that are not durable")


def term_at(server: Server, index: int) -> int | None:
    """Term of the newest known entry at `index`: handed out by the core, or durable; None when cut off."""
    for effects in reversed(server.unsynced):
        if effects.entries and effects.entries[0].index <= index <= effects.entries[-1].index:
            return effects.entries[index - effects.entries[0].index].term
        if effects.snapshot is not None and index <= effects.snapshot.last_index:
            return effects.snapshot.last_term if index == effects.snapshot.last_index else None
    if server.log.base.last_index <= index <= server.log.last_index:
        return server.log.term(index)
    return None
