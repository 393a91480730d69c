"""Records: what is written is read back, and anything else is told from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.storage.record import (
    BURST_SIZE_BYTES,
    ENTRY_HEAD_SIZE_BYTES,
    HEAD,
    BadRecord,
    Record,
    RecordType,
    decode_burst,
    decode_entry,
    decode_entry_place,
    decode_record,
    encode_burst,
    encode_entry_head,
    encode_record,
)
from raftkv.types import Entry, EntryKind

entries = st.builds(
    Entry, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from(EntryKind), st.binary(max_size=200)
)


@given(entries, st.integers(0, 2**64 - 1), st.integers(0, 2**32))
def test_an_entry_comes_back_from_its_place(entry: Entry, sequence: int, offset: int) -> None:
    data = encode_entry_head(sequence, offset, entry) + entry.data
    assert len(data) == ENTRY_HEAD_SIZE_BYTES + len(entry.data)
    assert decode_entry(b"junk" + data + b"junk", 4, sequence, offset) == entry


@given(entries, st.integers(0, 100))
def test_both_ways_to_read_an_entry_agree(entry: Entry, at: int) -> None:
    data = bytes(at) + encode_entry_head(3, at, entry) + entry.data
    record = decode_record(data, at, len(data), 3)
    assert (record.type, record.group, record.stop_offset) == (RecordType.ENTRY, 0, len(data))
    assert decode_entry_place(record.payload) == (entry.index, entry.term, entry.kind)


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_is_found(payload: bytes, data: st.DataObject) -> None:
    encoded = bytearray(encode_record(1, 0, RecordType.BASE, payload, group=9))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadRecord):
        decode_record(bytes(encoded) + bytes(500), 0, len(encoded) + 500, 1)


def test_a_record_is_valid_only_in_its_segment_and_at_its_offset() -> None:
    encoded = encode_record(7, 100, RecordType.BASE, b"payload")
    assert decode_record(bytes(100) + encoded, 100, 200, 7) == Record(100, RecordType.BASE, 0, b"payload")
    with pytest.raises(BadRecord):
        decode_record(bytes(100) + encoded, 100, 200, 8)
    with pytest.raises(BadRecord):
        decode_record(bytes(101) + encoded, 101, 200, 7)


def test_an_entry_read_at_another_place_or_of_another_type_is_refused() -> None:
    entry = Entry(5, 2, EntryKind.COMMANDS, b"data")
    data = encode_entry_head(1, 0, entry) + entry.data
    for wrong, sequence, offset in ((data, 2, 0), (data, 1, 8), (data[:-1] + b"b", 1, 0), (data[:20], 1, 0)):
        with pytest.raises(BadRecord):
            decode_entry(wrong, 0, sequence, offset)
    with pytest.raises(BadRecord):
        decode_entry(encode_record(1, 0, RecordType.BASE, bytes(40)), 0, 1, 0)


def test_zeros_are_no_record() -> None:
    with pytest.raises(BadRecord):
        decode_record(bytes(100), 0, 100, 0)


@pytest.mark.parametrize("stop", [HEAD.size - 1, HEAD.size, BURST_SIZE_BYTES - 1])
def test_a_record_must_end_within_its_burst(stop: int) -> None:
    encoded = encode_burst(1, 0, 17, 1000)
    assert decode_burst(decode_record(encoded, 0, BURST_SIZE_BYTES, 1)) == (17, 1000)
    with pytest.raises(BadRecord):
        decode_record(encoded, 0, stop, 1)


def test_only_a_burst_record_begins_a_burst() -> None:
    for record_type, payload in (
        (RecordType.BASE, encode_burst(1, 0, 1, 1)[HEAD.size :]),
        (RecordType.BURST, b"x" * 20),
    ):
        with pytest.raises(BadRecord):
            decode_burst(Record(0, record_type, 0, payload))
