"""Where one segment stops being as it was written, and whether a crash may leave that."""

from __future__ import annotations

import pytest

from raftkv.storage.record import BURST_SIZE_BYTES, HEAD, RecordType, encode_burst, encode_record
from raftkv.storage.scan import ScannedBurst, SegmentScan, first_written, written_stop

SIZE = 4096
PAYLOADS = (b"a" * 100, b"b" * 700)


def burst(offset: int, number: int, *payloads: bytes) -> bytes:
    at = offset + BURST_SIZE_BYTES
    records = b""
    for payload in payloads:
        records += encode_record(1, at + len(records), RecordType.BASE, payload)
    return encode_burst(1, offset, number, BURST_SIZE_BYTES + len(records)) + records


def segment(*numbers: int) -> bytes:
    data = b""
    for number in numbers:
        data += burst(len(data), number, *PAYLOADS)
    return data.ljust(SIZE, b"\0")


LENGTH = len(burst(0, 1, *PAYLOADS))


def scanned(data: bytes, expected_number: int | None = None) -> tuple[list[ScannedBurst], SegmentScan]:
    scan = SegmentScan(1, data)
    return list(scan.bursts(expected_number)), scan


def erased(data: bytes, start: int, stop: int) -> bytes:
    return data[:start] + bytes(stop - start) + data[stop:]


def test_whole_bursts_are_read_to_the_zeros() -> None:
    bursts, scan = scanned(segment(8, 9, 10))
    assert [each.number for each in bursts] == [8, 9, 10]
    assert [record.payload for record in bursts[1].records] == list(PAYLOADS)
    assert (scan.stop_offset, scan.damage) == (3 * LENGTH, None)


def test_a_full_segment_and_an_empty_one_end_as_well() -> None:
    data = segment(1)[:LENGTH]
    assert scanned(data)[1].damage is None
    assert scanned(data + bytes(5))[1].damage is None
    assert scanned(bytes(SIZE))[0] == []


@pytest.mark.parametrize("start", [1, 10, BURST_SIZE_BYTES, BURST_SIZE_BYTES + HEAD.size, 500, LENGTH - 5])
def test_a_hole_in_the_last_burst_is_torn_and_in_any_other_one_damage(start: int) -> None:
    data = segment(1, 2, 3)
    for at, is_torn in ((0, False), (LENGTH, False), (2 * LENGTH, True)):
        _, scan = scanned(erased(data, at + start, at + LENGTH))
        assert scan.stop_offset == at
        assert scan.damage is not None
        assert (scan.damage.is_torn, scan.damage.burst_offset) == (is_torn, at)
        assert at <= scan.damage.offset <= at + start


def test_a_burst_without_its_first_sector_is_torn_although_bytes_follow() -> None:
    _, scan = scanned(erased(segment(1, 2), LENGTH, LENGTH + 512))
    assert scan.damage is not None
    assert scan.damage.is_torn


def test_any_byte_behind_a_broken_burst_proves_that_it_had_been_whole() -> None:
    data = bytearray(erased(segment(1, 2), 2 * LENGTH - 9, 2 * LENGTH))
    assert scanned(bytes(data))[1].damage.is_torn  # type: ignore[union-attr]
    data[-1] = 1
    assert not scanned(bytes(data))[1].damage.is_torn  # type: ignore[union-attr]


@pytest.mark.parametrize(("numbers", "expected"), [((1, 3), None), ((1, 1), None), ((5,), 4)])
def test_bursts_must_be_numbered_without_gaps(numbers: tuple[int, ...], expected: int | None) -> None:
    _, scan = scanned(segment(*numbers), expected)
    assert scan.damage is not None
    assert not scan.damage.is_torn
    assert "burst" in scan.damage.problem


@pytest.mark.parametrize("length_bytes", [0, BURST_SIZE_BYTES - 1, SIZE + 1])
def test_a_burst_cannot_be_smaller_than_its_record_or_larger_than_the_file(length_bytes: int) -> None:
    _, scan = scanned(encode_burst(1, 0, 1, length_bytes).ljust(SIZE, b"\0"))
    assert scan.damage is not None
    assert not scan.damage.is_torn


@pytest.mark.parametrize("at", [0, 1, 65535, 65536, 65537, 199_999])
def test_the_first_and_last_written_bytes_are_found_in_any_chunk(at: int) -> None:
    data = bytearray(200_000)
    assert (first_written(bytes(data), 0), written_stop(bytes(data))) == (-1, 0)
    data[at] = 1
    assert (first_written(bytes(data), 0), written_stop(bytes(data))) == (at, at + 1)
    assert first_written(bytes(data), at) == at
    assert first_written(bytes(data), at + 1) == -1
