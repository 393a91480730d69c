"""The bytes that older logs and states hold must stay readable: golden bytes, and the order of encoded keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftkv.kv import Command, Compact, Delete, KeyValue, Put, decode_batch, encode_batch, keyspace

commands = st.one_of(
    st.builds(Put, st.binary(max_size=5), st.binary(max_size=5), st.integers(0, 2**63 - 1)),
    st.builds(Delete, st.binary(max_size=5)),
    st.builds(Compact, st.integers(0, 2**63 - 1)),
)
keys = st.lists(st.sampled_from([b"\x00", b"\x01", b"a", b"\xfe", b"\xff"]), max_size=5).map(b"".join)


@given(st.lists(commands))
def test_a_batch_comes_back_as_it_was(batch: list[Command]) -> None:
    assert decode_batch(encode_batch(batch)) == batch


def test_the_bytes_of_a_batch_never_change() -> None:
    """A log written by the first version holds these."""
    data = bytes.fromhex("93 9401c4016bc4017605 9202c4016b 920307")
    assert encode_batch([Put(b"k", b"v", 5), Delete(b"k"), Compact(7)]) == data
    assert decode_batch(bytes.fromhex("919301c4016bc40176")) == [Put(b"k", b"v", 0)], "a put without a lease field"


def test_a_later_field_is_ignored_by_this_version() -> None:
    assert decode_batch(bytes.fromhex("919502c4016b01c0c3")) == [Delete(b"k")]


@given(keys, st.integers(0, 2**64 - 1), keys, st.integers(0, 2**64 - 1))
def test_history_is_ordered_by_key_and_then_revision(a: bytes, at_a: int, b: bytes, at_b: int) -> None:
    assert (keyspace.history_key(a, at_a) < keyspace.history_key(b, at_b)) == ((a, at_a) < (b, at_b))


@given(keys, st.integers(0, 2**64 - 1))
def test_a_history_key_splits_into_what_made_it(key: bytes, revision: int) -> None:
    assert keyspace.split_history_key(keyspace.history_key(key, revision)) == (key, revision)


@given(keys, keys, st.integers(0, 2**64 - 1))
def test_no_key_is_mistaken_for_another_ones_version(a: bytes, b: bytes, revision: int) -> None:
    assert keyspace.history_key(b, revision).startswith(keyspace.history_prefix(a)) == (a == b)


def test_the_bytes_of_the_state_never_change() -> None:
    assert keyspace.history_key(b"a\x00b", 258) == b"Ha\x00\xffb\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02"
    assert keyspace.changes_key(258) == b"R\x00\x00\x00\x00\x00\x00\x01\x02"
    position = keyspace.Position(last_applied=1, last_applied_term=2, revision=3, compact_revision=4)
    encoded = b"".join(number.to_bytes(8, "big") for number in (1, 1, 2, 3, 4))
    assert keyspace.encode_position(position) == encoded
    assert keyspace.decode_position(encoded) == position
    record = b"".join(number.to_bytes(8, "big") for number in (5, 6, 7, 8)) + b"value"
    assert keyspace.decode_record(b"k", record) == KeyValue(b"k", b"value", 5, 6, 7, 8)
    assert keyspace.encode_changes([b"k", 0, b"l", 300, b"k", -2]) == bytes.fromhex("96c4016b00c4016ccd012cc4016bfe")
    assert keyspace.decode_changes(bytes.fromhex("96c4016b00c4016ccd012cc4016bfe")) == [
        (b"k", 0),
        (b"l", 300),
        (b"k", -2),
    ]
