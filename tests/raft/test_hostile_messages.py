"""Garbage at the core's door: bytes that are no message, and messages that no honest server would send.

Raft does not defend against servers that lie (§2: "non-Byzantine conditions"), so what a well-formed lie makes of the
*cluster* is not tested here. What is: one server fed with any mixture of such messages never raises, except for the
one contradiction that it must not swallow, and its own state stays consistent.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.errors import InvariantViolation, PeerProtocolError
from raftkv.raft import RaftNode, RaftSettings, decode_message, encode_message
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
from raftkv.storage import MemoryLog
from raftkv.types import Configuration, Entry, EntryKind, SnapshotMetadata
from tests.raft.harness import Server, alone, leader_alone
from tests.raft.story import leader_with_log
from tests.raft.words import append, command, configuration, members, vote_request

CONTRADICTION = "than the one committed here"
"""A peer claims another committed history. Going on would hide lost data; stopping loses nothing."""

small = st.integers(-2, 12)
edges = st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**62, 2**63 - 1])
number = small | small | small | edges
peer = st.sampled_from([1, 2, 2, 3, 3, 4, 9]) | edges
flag = st.booleans()
data = st.sampled_from([b"", b"x", bytes(200), b"\x93\x01\x02", b"\xff"])
member_tuples = st.lists(st.integers(-1, 5), max_size=4).map(members)
configurations = st.builds(Configuration, member_tuples, member_tuples, member_tuples, member_tuples)
configuration_data = configurations.map(msgspec.msgpack.encode) | data
entries = st.builds(Entry, number, number, st.sampled_from(EntryKind), configuration_data)


def contiguous(first: int, terms: list[int], kinds: list[EntryKind]) -> tuple[Entry, ...]:
    """Entries that pass the first look, so that the tests also get behind it."""
    value = msgspec.msgpack.encode(configuration((1, 2, 3)))
    ascending = sorted(terms)
    return tuple(
        Entry(first + i, term, kind, value if kind is EntryKind.CONFIGURATION else b"z")
        for i, (term, kind) in enumerate(zip(ascending, kinds, strict=False))
    )


plausible_append = st.builds(
    lambda term, sender, prev, prev_term, terms, kinds, commit, read_round: AppendEntries(
        term,
        sender,
        1,
        prev,
        min(prev_term, term) if prev else 0,
        commit,
        read_round,
        contiguous(prev + 1, terms, kinds),
    ),
    st.integers(1, 9),
    st.sampled_from([2, 3]),
    st.integers(0, 8),
    st.integers(1, 9),
    st.lists(st.integers(1, 6), max_size=5),
    st.lists(st.sampled_from(EntryKind), min_size=5, max_size=5),
    st.integers(0, 12),
    st.integers(0, 5),
)
plausible_snapshot = st.builds(
    lambda term, sender, last, last_term, voters: InstallSnapshot(
        term, sender, 1, SnapshotMetadata(last, min(last_term, term), configuration(voters), min(last, 1))
    ),
    st.integers(1, 9),
    st.sampled_from([2, 3]),
    st.integers(1, 12),
    st.integers(1, 9),
    st.sets(st.integers(1, 5), min_size=1, max_size=4),
)
messages: st.SearchStrategy[Message] = st.one_of(
    plausible_append,
    plausible_snapshot,
    st.builds(PreVote, number, peer, peer, number, number),
    st.builds(PreVoteReply, number, peer, peer, number, flag),
    st.builds(RequestVote, number, peer, peer, number, number, flag),
    st.builds(RequestVoteReply, number, peer, peer, flag),
    st.builds(
        AppendEntries, number, peer, peer, number, number, number, number, st.lists(entries, max_size=4).map(tuple)
    ),
    st.builds(AppendEntriesReply, number, peer, peer, flag, number, number, number, number, number),
    st.builds(
        InstallSnapshot, number, peer, peer, st.builds(SnapshotMetadata, small, number, configurations, number), number
    ),
    st.builds(InstallSnapshotReply, number, peer, peer, number, number),
    st.builds(TimeoutNow, number, peer, peer),
    st.builds(ReadIndex, number, peer, peer, number),
    st.builds(ReadIndexReply, number, peer, peer, number, flag, number),
)


def subject(kind: str) -> Server:
    match kind:
        case "fresh":
            return alone(1, ())
        case "follower":
            server = alone(1, log=[1, 1, 2], term=2)
            server.step(append(2, 2, 1, (3, 2), commit=2))
            return server
        case "candidate":
            server = alone(1, log=[1, 1], pre_vote=False)
            server.campaign()
            return server
        case "leader":
            return leader_with_log([1, 1], term=1)
        case "joint leader":
            server = leader_with_log([1], term=1)
            server.propose_configuration((1, 4, 5), (3,))
            server.request_read(1)
            return server
        case _:
            server = leader_alone(log=[1, 1, 1])
            server.transfer_leadership(2)
            return server


def feed(server: Server, message: Message) -> None:
    """As the wire would: garbage snapshots come with whatever chunks they came with."""
    if isinstance(message, InstallSnapshot):
        snapshot = message.snapshot
        server.stage(snapshot, [command(i, snapshot.last_term) for i in range(1, snapshot.last_index + 1)])
    server.step(message)


SUBJECTS = ["fresh", "follower", "candidate", "leader", "joint leader", "leader that hands over"]


@pytest.mark.parametrize("kind", SUBJECTS)
@given(garbage=st.lists(messages, min_size=1, max_size=8), ticks=st.integers(0, 20))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_message_breaks_a_server(kind: str, garbage: list[Message], ticks: int) -> None:
    """Whatever comes in, in whatever role: the deep invariants hold after every message, and the clock still runs."""
    server = subject(kind)
    term, commit_index = server.term, server.commit_index
    try:
        for message in garbage:
            feed(server, message)
            assert server.term >= term
            assert server.commit_index >= commit_index
            term, commit_index = server.term, server.commit_index
        server.tick(ticks)
    except InvariantViolation as stopped:
        assert CONTRADICTION in str(stopped)  # noqa: PT017 - any other violation would be a defect
        assert [entry.index for entry in server.machine.history] == list(range(1, len(server.machine.history) + 1))


@given(raw=st.binary(max_size=60))
@settings(max_examples=400, deadline=None)
def test_bytes_that_are_no_message_raise_the_peers_error_only(raw: bytes) -> None:
    """Design: garbage on the peer port ends that connection and nothing else."""
    try:
        message = decode_message(raw)
    except PeerProtocolError:
        return
    assert decode_message(encode_message(message)) == message


@given(message=messages, position=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.integers(0, 60))
@settings(max_examples=400, deadline=None)
def test_damaged_messages_raise_the_peers_error_only(message: Message, position: int, bit: int, cut: int) -> None:
    """One flipped bit, or a message cut short."""
    try:
        raw = bytearray(encode_message(message))
    except (OverflowError, msgspec.ValidationError):
        return
    raw[position % len(raw)] ^= 1 << bit
    for damaged in (bytes(raw), bytes(raw[:cut])):
        try:
            decode_message(damaged)
        except PeerProtocolError:
            continue


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00", b"\xc1", b"\x90", b"\x91\x01", b"\x91\xff", b"\xff" * 100, b"\x91" * 5000, b"\xdd\xff\xff\xff\xff"],
    ids=["empty", "zero", "never used", "no tag", "tag alone", "bad tag", "ones", "nested", "huge array"],
)
def test_known_garbage_raises_the_peers_error(raw: bytes) -> None:
    """The classics."""
    with pytest.raises(PeerProtocolError):
        decode_message(raw)


def test_text_that_is_no_utf_8_raises_the_peers_error() -> None:
    """The decoder reports it as `UnicodeDecodeError`, not as its own error; a name in a snapshot's configuration."""
    raw = encode_message(InstallSnapshot(1, 2, 1, SnapshotMetadata(1, 1, configuration((1, 2, 3)))))
    with pytest.raises(PeerProtocolError):
        decode_message(raw.replace(b"node1", b"\xffode1"))
    server = alone(1, term=1)
    value = msgspec.msgpack.encode(configuration((1, 2, 3))).replace(b"node1", b"\xffode1")
    server.step(append(1, 2, 1, (0, 0), [Entry(1, 1, EntryKind.CONFIGURATION, value)]))
    assert server.log.last_index == 0


def test_a_message_with_something_behind_it_is_garbage() -> None:
    """Exactly one message a frame."""
    with pytest.raises(PeerProtocolError):
        decode_message(encode_message(TimeoutNow(1, 2, 3)) + b"\x00")


@given(message=st.one_of(plausible_append, plausible_snapshot))
@settings(max_examples=100, deadline=None)
def test_the_codec_gives_back_what_it_was_given(message: Message) -> None:
    """Entries, configurations and snapshots included."""
    assert decode_message(encode_message(message)) == message


def test_messages_for_somebody_else_are_dropped() -> None:
    """A server that took over another's address must not answer for it."""
    server = alone(1)
    for message in (vote_request(1, 2, 7), append(1, 2, 7), PreVote(1, 2, 7, 0, 0)):
        server.step(message)
    assert server.outbox == []
    assert server.term == 0
    assert server.status.ignored_count == 3


def test_a_message_from_itself_is_dropped() -> None:
    """Nobody sends those; a copied data directory would (two servers with one identity)."""
    server = alone(1, term=1)
    server.step(append(2, 1, 1, (0, 0), [command(1, 2)]))
    assert server.log.last_index == 0
    assert server.term == 1


def test_entries_with_a_gap_are_dropped() -> None:
    """Such an append would leave a hole in the log."""
    server = alone(1, term=1)
    server.step(append(1, 2, 1, (0, 0), [command(1, 1), command(3, 1)]))
    server.step(append(1, 2, 1, (0, 0), [command(2, 1)]))
    assert server.log.last_index == 0


def test_entries_with_falling_or_future_terms_are_dropped() -> None:
    """Terms never fall along a log, and no entry is newer than its leader."""
    server = alone(1, term=1)
    server.step(append(3, 2, 1, (0, 0), [command(1, 2), command(2, 1)]))
    server.step(append(3, 2, 1, (0, 0), [command(1, 4)]))
    assert server.log.last_index == 0


@pytest.mark.parametrize("term", [2**62, 2**62 - 1, 2**61 + 2**21, 2**61])
def test_no_message_uses_up_the_terms(term: int) -> None:
    """Terms are kept: a cluster that is in the last one could never elect again, whatever is restarted."""
    server, other = alone(1, term=1), alone(2, term=1)
    for _ in range(9):
        server.step(vote_request(term, 9, 1, (9, 1), is_transfer=True))
        server.step(append(term, 9, 1))
    server.win_election((2, 3))
    other.step(append(server.term, 1, 2))
    assert other.term == server.term


def test_a_server_follows_a_cluster_whose_terms_somebody_drove_up() -> None:
    """Also one that was away meanwhile, or is new."""
    server = alone(1)
    for term, leader in ((2**61 + 7, 2), (2**61 + 8, 3)):
        server.step(append(term, leader, 1))
        assert server.term == term


def test_an_unusable_configuration_is_not_taken_into_the_log() -> None:
    """A configuration without voters, or one that does not decode, could never be left again."""
    server = alone(1, term=1)
    for raw in (b"", b"junk", msgspec.msgpack.encode(Configuration())):
        server.step(append(1, 2, 1, (0, 0), [Entry(1, 1, EntryKind.CONFIGURATION, raw)]))
    assert server.log.last_index == 0
    assert server.status.configuration == configuration((1, 2, 3))


def test_a_contradiction_of_committed_entries_stops_the_server_and_changes_nothing() -> None:
    """The one lie that is not dropped: it can only mean that committed data was lost somewhere."""
    server = alone(1, log=[1, 1], term=1)
    server.step(append(1, 2, 1, (2, 1), commit=2))
    with pytest.raises(InvariantViolation, match=CONTRADICTION):
        server.step(append(5, 3, 1, (0, 0), [command(1, 5)]))
    assert server.log_terms() == [1, 1]
    assert [entry.term for entry in server.machine.history] == [1, 1]


def test_a_contradiction_at_the_end_of_what_was_cut_off_is_noticed_too() -> None:
    """The last entry of the cut is the only one that can still be compared; what follows it must not be taken."""
    server = alone(1, log=[1, 2, 2], term=3, applied_index=3)
    server.compact(2)
    with pytest.raises(InvariantViolation, match=CONTRADICTION):
        server.step(append(3, 2, 1, (1, 1), [command(2, 1), command(3, 1), command(4, 1)]))
    assert server.log_terms() == [2]


def test_a_server_goes_on_working_after_garbage() -> None:
    """Dropped means dropped: the next honest message is handled as if nothing had been."""
    server = RaftNode(RaftSettings(member_id=1), MemoryLog(), random.Random(0))
    for term in (-5, 2**62 + 1, 2**63 - 1):
        server.step(append(term, 2, 1))
        server.step(vote_request(term, 2, 1))
    assert server.current_term == 0
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)], commit=1))
    assert server.status().last_index == 1
