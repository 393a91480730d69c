"""What nodes say to each other survives the journey; anything else blames the peer and nobody else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import OutcomeUnknown, PeerProtocolError
from raftkv.kv import Compact, Delete, KeyValueMachine, Put, PutResult
from raftkv.runtime import wire
from raftkv.runtime.clients.codec import KeyValueCodec, command_bytes, takes_space
from raftkv.storage import MemoryStore
from raftkv.types import Configuration, Entry, EntryKind, Member

MEMBER = Member(2**63 - 1, "node1", "host1:1", "host1:2")
MESSAGES: list[Any] = [
    wire.Forward(2**62, b"batch"),
    wire.ForwardReply(1, 7, b"results"),
    wire.ForwardReply(1, 0, b"", wire.Failure("NoLeader", "try again", False)),
    wire.Probe(),
    wire.ProbeReply("node1", 1, 2, 3, True, "host1:1", "host1:2"),
    wire.Absorb(1, 2, 3, Configuration((MEMBER,), (MEMBER,))),
    wire.AbsorbReply(1, "host1:2"),
    wire.Join("node1", "host1:1", True),
    wire.Remove("node1"),
    wire.Transfer(),
    wire.ChangeReply(False, "3 of 7"),
]
KINDS = sorted({type(message) for message in MESSAGES}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_said_arrives(message: Any) -> None:
    assert wire.decode(wire.encode(message), type(message)) == message
    assert wire.decode(memoryview(wire.encode(message)), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_field_that_a_newer_version_adds_at_the_end_is_no_error(message: Any) -> None:
    fields = msgspec.msgpack.decode(wire.encode(message))
    assert wire.decode(wire.encode([*fields, "new"]), type(message)) == message


@given(st.binary(max_size=64), st.sampled_from(KINDS))
def test_any_bytes_either_decode_or_blame_the_peer(data: bytes, kind: type[Any]) -> None:
    try:
        found = wire.decode(data, kind)
    except PeerProtocolError:
        return
    assert type(found) is kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_cut_short_or_followed_by_more_is_taken(kind: type[Any]) -> None:
    message = next(message for message in MESSAGES if type(message) is kind)
    data = wire.encode(message)
    for wrong in (data + b"\x00", data[:-1], b""):
        with pytest.raises(PeerProtocolError):
            wire.decode(wrong, kind)


def test_deep_nesting_is_no_way_to_exhaust_the_stack() -> None:
    for kind in KINDS:
        with pytest.raises(PeerProtocolError):
            wire.decode(b"\x91" * 100_000, kind)


def test_an_answer_that_cannot_be_read_leaves_open_what_was_done() -> None:
    assert wire.decode_answer(wire.encode(wire.ChangeReply(True)), wire.ChangeReply).is_complete
    with pytest.raises(OutcomeUnknown):
        wire.decode_answer(b"\xc1", wire.ChangeReply)


# ---- Commands and results

CODEC = KeyValueCodec()
keys = st.binary(min_size=1, max_size=40)
commands = st.one_of(
    st.builds(Put, keys, st.binary(max_size=200)), st.builds(Delete, keys), st.builds(Compact, st.integers(1, 2**62))
)


@given(st.lists(commands, min_size=1, max_size=20))
def test_a_batch_arrives_and_is_no_larger_than_it_was_counted(batch: list[Any]) -> None:
    data = CODEC.encode_batch(batch)
    assert CODEC.decode_batch(data) == batch
    assert len(data) <= sum(command_bytes(command) for command in batch) + 5


def test_results_and_failures_arrive_side_by_side() -> None:
    outcomes = [PutResult(2, 2, 1), wire.Failure("Overloaded", "slow down", False), PutResult(3, 2, 2)]
    assert CODEC.decode_results(CODEC.encode_results(outcomes)) == outcomes


@given(st.binary(max_size=64))
def test_any_bytes_are_a_batch_or_blame_the_peer(data: bytes) -> None:
    for decode in (CODEC.decode_batch, CODEC.decode_results):
        try:
            decode(data)
        except PeerProtocolError:
            continue


def test_a_forwarded_command_that_no_member_could_apply_blames_the_peer() -> None:
    """Proposed, it would be in every log, and every member would stop at it at every start."""
    for lease in (-1, -(2**63)):
        with pytest.raises(PeerProtocolError):
            CODEC.decode_batch(msgspec.msgpack.encode([[1, b"key", b"value", lease]]))
    most = [Put(b"key", b"value", 2**64 - 1)]
    KeyValueMachine(MemoryStore()).apply([Entry(1, 1, EntryKind.COMMANDS, CODEC.encode_batch(most))])


@pytest.mark.parametrize("fields", [[2, b"key"], [1, b"key", b"value", 0]], ids=["delete", "put"])
def test_deep_nesting_behind_a_command_blames_the_peer(fields: list[Any]) -> None:
    """A later version's fields are skipped, which recurses."""
    command = msgspec.msgpack.encode([*fields, None])[:-1]
    with pytest.raises(PeerProtocolError):
        CODEC.decode_batch(b"\x91" + command + b"\x91" * 100_000 + b"\xc0")
    result = msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(PutResult(2, 2, 1))), None])[:-1]
    with pytest.raises(PeerProtocolError):
        CODEC.decode_results(b"\x91" + result + b"\x91" * 100_000 + b"\xc0")


def test_deleting_and_compacting_go_on_when_the_disk_is_full() -> None:
    assert takes_space(Put(b"k", b"v"))
    assert not takes_space(Delete(b"k"))
    assert not takes_space(Compact(1))
