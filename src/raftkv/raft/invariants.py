"""Facts that must hold between any two inputs (Raft figure 3 and what this core adds).

`Invariants.check` looks at single numbers and runs in production after every input: about a microsecond. `check_all`
walks the log, the peers and the configurations; tests run it after every step. Both raise `InvariantViolation`.

Facts across servers (election safety, log matching, leader completeness) cannot be seen from here; the tests'
cluster checks them.
"""

from __future__ import annotations

from raftkv.errors import require
from raftkv.raft.configurations import configuration_problem, decode_configuration
from raftkv.raft.election import can_campaign
from raftkv.raft.leading import Leading
from raftkv.raft.log import size_bytes
from raftkv.raft.progress import ProgressState
from raftkv.raft.quorum import Voters
from raftkv.raft.state import RaftState
from raftkv.types import NOBODY, EntryKind, Role


class Invariants:
    """Remembers what may only grow."""

    __slots__ = ("_commit_index", "_current_term", "_voted_for")

    def __init__(self, state: RaftState) -> None:
        self._current_term = state.current_term
        self._voted_for = state.voted_for
        self._commit_index = state.commit_index

    def check(self, state: RaftState) -> None:
        term, commit_index, log = state.current_term, state.commit_index, state.log
        if term != self._current_term:
            require(term > self._current_term, "current_term went back from {} to {}", self._current_term, term)
            self._current_term, self._voted_for = term, state.voted_for
        elif state.voted_for != self._voted_for:
            require(
                self._voted_for == NOBODY, "second vote in term {}: {} after {}", term, state.voted_for, self._voted_for
            )
            self._voted_for = state.voted_for
        if commit_index != self._commit_index:
            require(
                commit_index > self._commit_index, "commit_index back from {} to {}", self._commit_index, commit_index
            )
            self._commit_index = commit_index
        if not state.last_applied <= state.handed_out_index <= commit_index <= log.last_index:
            require(
                False,
                "not last_applied {} <= handed out {} <= commit_index {} <= last_index {}",
                state.last_applied,
                state.handed_out_index,
                commit_index,
                log.last_index,
            )
        if not log.persisted_index <= log.handed_index <= log.last_index:
            require(
                False,
                "not persisted {} <= written {} <= last_index {}",
                log.persisted_index,
                log.handed_index,
                log.last_index,
            )
        if (state.role is Role.LEADER) is (state.leading is None):
            require(False, "role {} does not fit the leader's state", state.role)


def check_all(state: RaftState) -> None:
    """Everything that can be checked on one server; the cost grows with the log's tail."""
    _check_log(state)
    _check_configurations(state)
    _check_role(state)
    if state.leading is not None:
        _check_leading(state, state.leading)


def _check_log(state: RaftState) -> None:
    log = state.log
    first, tail, tail_bytes = log.tail()
    require(first + len(tail) == log.last_index + 1, "the tail does not end at last_index {}", log.last_index)
    require(first <= log.persisted_index + 1 or first == log.base_index + 1, "entries missing before {}", first)
    require(tail_bytes == size_bytes(tail), "the tail has {} bytes, counted {}", size_bytes(tail), tail_bytes)
    term = log.term(first - 1) if first > log.base_index else 0
    for offset, entry in enumerate(tail):
        require(entry.index == first + offset, "entry {} stands at {}", entry.index, first + offset)
        require(term <= entry.term <= state.current_term, "term {} at {} after {}", entry.term, entry.index, term)
        term = entry.term
    require(log.last_term == log.term(log.last_index), "last_term {} is stale", log.last_term)
    require(state.commit_index >= log.base_index, "commit_index {} below the base", state.commit_index)


def _check_configurations(state: RaftState) -> None:
    items = state.configurations.items()
    require(items[-1] == (state.configuration_index, state.configuration), "the latest configuration is not in force")
    indexes = [index for index, _ in items]
    require(indexes == sorted(set(indexes)), "configurations out of order: {}", indexes)
    for index, configuration in items[1:]:
        require(not configuration_problem(configuration), "unusable configuration at {}", index)
    first, tail, _ = state.log.tail()
    in_tail = [(e.index, decode_configuration(e.data)) for e in tail if e.kind == EntryKind.CONFIGURATION]
    base_index = items[0][0]
    expected = [item for item in in_tail if item[0] > base_index]
    require([item for item in items[1:] if item[0] >= first] == expected, "configurations differ from the log's")
    voters = Voters.of(state.configuration)
    require(voters.all == state.voters.all, "the voters in use are not the configuration's")
    require(state.is_voter == (state.member_id in voters.all), "is_voter is stale")


def _check_role(state: RaftState) -> None:
    if state.role is Role.LEADER:
        require(state.leader == state.member_id, "a leader that follows {}", state.leader)
    if state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
        require(state.leader == NOBODY, "a {} that follows {}", state.role, state.leader)
        require(can_campaign(state), "a {} that is no voter", state.role)
    if state.role is Role.CANDIDATE:
        require(state.voted_for == state.member_id, "a candidate that voted for {}", state.voted_for)
    require(not (state.leading is not None and state.forwarded_reads), "a leader that asks a leader")
    held_tickets = [ticket for ticket, _ in state.held]
    require(held_tickets == sorted(held_tickets), "held replies out of order")
    require(all(ticket > state.log.persisted_ticket for ticket in held_tickets), "a held reply was forgotten")


def _check_leading(state: RaftState, leading: Leading) -> None:
    log = state.log
    require(log.last_term == state.current_term, "a leader whose log does not end in its own term")
    start_index = max(leading.term_start_index, log.base_index)
    require(log.term(start_index) == state.current_term, "term_start_index is of another term")
    members = [member_id for member_id in state.configuration.members() if member_id != state.member_id]
    regular = [peer.member_id for peer in leading.peers.values() if not peer.is_removed]
    require(regular == members, "replicating to {}, members are {}", regular, members)
    for peer in leading.peers.values():
        require(peer.match_index < peer.next_index, "match {} not below next {}", peer.match_index, peer.next_index)
        require(peer.next_index <= log.last_index + 1, "next_index {} beyond the log", peer.next_index)
        require(peer.inflight_bytes == sum(size for _, size in peer.inflight), "in-flight bytes of {}", peer.member_id)
        require(not peer.inflight or peer.state is ProgressState.REPLICATE, "in flight while {}", peer.state)
        require(peer.round_acknowledged <= leading.read_round, "a read round that was never sent")
        require(peer.commit_sent <= state.commit_index, "a commit index that was never reached")
    require(leading.uncommitted_bytes == sum(size for _, size in leading.proposals), "uncommitted bytes do not add up")
    require(all(index > state.commit_index for index, _ in leading.proposals), "a committed proposal is still counted")
    # It may inherit a joint configuration and the one after it, and not know yet that the first is committed.
    own_first = max(leading.term_start_index, state.commit_index + 1)
    own_changes = [index for index, _ in state.configurations.items() if index >= own_first]
    require(len(own_changes) <= 1, "two changes of members at a time: {}", own_changes)
    waiting = len(leading.gathered_reads) + sum(len(read_round.requests) for read_round in leading.rounds)
    require(waiting == leading.pending_read_count, "{} reads wait, counted {}", waiting, leading.pending_read_count)
