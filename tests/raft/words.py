"""How the tests write down members, entries and messages, close to the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftkv.raft import encode_configuration
from raftkv.raft.messages import AppendEntries, AppendEntriesReply, RequestVote
from raftkv.types import Configuration, Entry, EntryKind, Member, MemberId


def member(member_id: MemberId) -> Member:
    return Member(member_id, f"node{member_id}", f"host{member_id}:1111", f"host{member_id}:2221")


def members(member_ids: Iterable[MemberId]) -> tuple[Member, ...]:
    return tuple(member(member_id) for member_id in member_ids)


def configuration(
    voters: Iterable[MemberId],
    learners: Iterable[MemberId] = (),
    outgoing: Iterable[MemberId] = (),
    learners_next: Iterable[MemberId] = (),
) -> Configuration:
    return Configuration(members(voters), members(learners), members(outgoing), members(learners_next))


def command(index: int, term: int, data: bytes | None = None) -> Entry:
    """A distinct entry for each (index, term), so that a mix-up shows in the data as well."""
    return Entry(index, term, EntryKind.COMMANDS, data if data is not None else f"{index}@{term}".encode())


def entries_of_terms(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """A log as the paper's figures draw it: one number, the term, for each entry."""
    return [command(first + offset, term) for offset, term in enumerate(terms)]


def configuration_entry(index: int, term: int, value: Configuration) -> Entry:
    return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(value))


def append(
    term: int,
    leader: MemberId,
    to: MemberId,
    prev: tuple[int, int] = (0, 0),
    entries: Sequence[Entry] = (),
    commit: int = 0,
    read_round: int = 0,
) -> AppendEntries:
    """`prev` is (prev_log_index, prev_log_term)."""
    return AppendEntries(term, leader, to, prev[0], prev[1], commit, read_round, tuple(entries))


def accepted(request: AppendEntries, read_round: int | None = None) -> AppendEntriesReply:
    """The reply of a follower that took all of `request`."""
    last = request.prev_log_index + len(request.entries)
    rounds = request.read_round if read_round is None else read_round
    return AppendEntriesReply(
        request.term, request.recipient, request.sender, True, last, request.prev_log_index, 0, 0, rounds
    )


def vote_request(
    term: int, candidate: MemberId, to: MemberId, last: tuple[int, int] = (0, 0), *, is_transfer: bool = False
) -> RequestVote:
    """`last` is (last_log_index, last_log_term) of the candidate."""
    return RequestVote(term, candidate, to, last[0], last[1], is_transfer)
