"""What opening a log accepts, what it refuses, and that a refusal changes nothing on disk."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from raftkv.errors import CorruptData, DataDirectoryError, StorageError
from raftkv.storage.log_writer import WalStep
from raftkv.storage.memory_disk import MemoryDisk, PowerCut
from raftkv.storage.record import BURST_SIZE_BYTES, RecordType, encode_burst, encode_record
from raftkv.storage.scan import SegmentScan, written_stop
from raftkv.storage.segment import SegmentHeader, encode_header
from raftkv.types import HardState, SnapshotMetadata
from tests.storage.sync_log import (
    DIRECTORY,
    SEGMENT_SIZE_BYTES,
    State,
    SyncLog,
    append,
    entry,
    metadata,
    segment_file,
    vote,
)

Image = dict[Path, bytes]
SMALL = [WalStep(reset=metadata(0, 0), hard_state=HardState(1, 7)), append(1, 2), vote(2), append(3, 3, size_bytes=60)]


def closed_log(*steps: WalStep) -> tuple[Image, State]:
    """What a log with `steps`, one a burst, leaves after an orderly stop."""
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(*steps)
    state = log.state()
    log.close()
    return disk.image(), state


def killed_log(*steps: WalStep) -> tuple[Image, State]:
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(*steps)
    return disk.image(), log.state()


def refused(image: Image) -> StorageError:
    """The error of opening `image`, having made sure that nothing was changed by trying."""
    disk = MemoryDisk.holding(image)
    with pytest.raises((CorruptData, DataDirectoryError)) as caught:
        SyncLog(disk)
    assert disk.image() == image
    return caught.value


def opened(image: Image) -> State:
    return SyncLog(MemoryDisk.holding(image)).state()


def flipped(image: Image, path: Path, offset: int, bit: int) -> Image:
    content = bytearray(image[path])
    content[offset] ^= 1 << bit
    return {**image, path: bytes(content)}


def bursts(image: Image, sequence: int) -> list[tuple[int, int]]:
    """Where each burst of a segment begins and ends."""
    scan = SegmentScan(sequence, image[segment_file(sequence)])
    return [(burst.offset, burst.offset + burst.length_bytes) for burst in scan.bursts()]


def test_every_flipped_bit_of_a_stopped_log_is_refused_or_harmless() -> None:
    image, state = closed_log(*SMALL)
    path = segment_file(1)
    last_start, last_stop = bursts(image, 1)[-1]
    for offset in range(last_stop + 8):
        for bit in range(8):
            damaged = flipped(image, path, offset, bit)
            if offset >= last_start:  # the empty burst that proves the others, and the zeros behind it
                assert opened(damaged) == state
            else:
                error = refused(damaged)
                assert isinstance(error, CorruptData)
                assert error.path == str(path)
                assert 0 <= error.offset_bytes <= offset


def test_a_flipped_bit_of_a_killed_log_is_refused_unless_it_is_in_the_last_burst() -> None:
    image, state = killed_log(*SMALL)
    path = segment_file(1)
    without_last = killed_log(*SMALL[:-1])[1]
    last_start, last_stop = bursts(image, 1)[-1]
    for offset in range(last_stop):
        damaged = flipped(image, path, offset, offset % 8)
        if offset >= last_start:
            # The one thing that a log cannot know, see scan.py: was this torn, or did it go bad later?
            assert opened(damaged) == without_last
        else:
            assert isinstance(refused(damaged), CorruptData)
    assert opened(image) == state


def test_a_restart_ends_the_doubt_about_the_last_burst() -> None:
    image, _ = killed_log(*SMALL)
    start, _ = bursts(image, 1)[-1]
    disk = MemoryDisk.holding(image)
    SyncLog(disk)
    assert isinstance(refused(flipped(disk.image(), segment_file(1), start + BURST_SIZE_BYTES + 20, 3)), CorruptData)


def test_damage_in_an_older_segment_is_refused_wherever_it_is() -> None:
    image, _ = closed_log(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900), append(7, 9, size_bytes=900))
    path = segment_file(2)
    assert bursts(image, 3)
    choose = random.Random(1)
    for offset in sorted(choose.sample(range(SEGMENT_SIZE_BYTES), 300)):
        error = refused(flipped(image, path, offset, choose.randrange(8)))
        assert isinstance(error, CorruptData)
        assert error.path == str(path)


def test_flipped_bytes_that_were_never_written_are_no_damage() -> None:
    image, state = closed_log(*SMALL)
    assert opened(flipped(image, segment_file(1), SEGMENT_SIZE_BYTES - 5, 1)) == state
    assert opened(flipped(image, segment_file(2), 100, 1)) == state


def test_a_value_that_looks_like_a_later_burst_does_not_make_a_torn_write_look_like_damage() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(append(1, 1))
    state = log.state()
    log.put(append(2, 2))
    start, stop = bursts(disk.image(), 1)[-1]
    content = bytearray(disk.image()[segment_file(1)])
    content[start : start + BURST_SIZE_BYTES] = bytes(BURST_SIZE_BYTES)
    elsewhere = encode_burst(1, stop + 500, 1003, BURST_SIZE_BYTES)
    content[stop - len(elsewhere) : stop] = elsewhere
    assert opened({segment_file(1): bytes(content)}) == state


def test_a_cut_burst_leaves_only_zeros_behind() -> None:
    image, _ = killed_log(*SMALL)
    start, _ = bursts(image, 1)[-1]
    disk = MemoryDisk.holding(flipped(image, segment_file(1), start + 1, 0))
    log = SyncLog(disk)
    assert log.files.stats.cut_bytes > 0
    # What stands there now is the empty burst that proves the one before.
    assert written_stop(disk.image()[segment_file(1)]) <= start + BURST_SIZE_BYTES


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_segment_is_named(missing: int) -> None:
    image, _ = closed_log(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900), append(7, 9, size_bytes=900))
    assert len(bursts(image, 3)) > 0
    del image[segment_file(missing)]
    assert "missing" in str(refused(image))


def test_the_segment_in_use_cannot_go_missing_unnoticed_while_the_next_one_exists() -> None:
    image, _ = closed_log(*SMALL)
    del image[segment_file(1)]
    assert segment_file(2) in image
    assert "the log is empty, though it once had older segments" in str(refused(image))


def test_a_segment_under_another_name_is_not_accepted() -> None:
    image, _ = closed_log(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    image[segment_file(3)] = image[segment_file(2)]
    error = refused(image)
    assert isinstance(error, CorruptData)
    assert error.path == str(segment_file(3))


def test_a_segment_of_another_log_does_not_continue_this_one() -> None:
    image, _ = closed_log(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    other, _ = closed_log(append(1, 3, 2, size_bytes=901), append(4, 6, 2, size_bytes=901))
    image[segment_file(2)] = other[segment_file(2)]
    assert "does not continue" in str(refused(image))


@pytest.mark.parametrize("name", ["notes.txt", "1.wal", "00000000000000AB.wal", "0000000000000000.wal", "x.wal.new"])
def test_foreign_files_are_refused_by_name(name: str) -> None:
    image, _ = closed_log(*SMALL)
    image[DIRECTORY / name] = b"mine"
    error = refused(image)
    assert isinstance(error, DataDirectoryError)
    assert name in str(error)


def test_a_newer_format_is_refused_and_said_so() -> None:
    header = SegmentHeader(2, 1, SEGMENT_SIZE_BYTES, 0, SnapshotMetadata(), HardState(), 0)
    record = encode_record(1, BURST_SIZE_BYTES, RecordType.SEGMENT, encode_header(header))
    content = encode_burst(1, 0, 5, BURST_SIZE_BYTES + len(record)) + record
    error = refused({segment_file(1): content.ljust(SEGMENT_SIZE_BYTES, b"\0")})
    assert isinstance(error, DataDirectoryError)
    assert "format 2" in str(error)


@pytest.mark.parametrize("size", [0, 100, 700, SEGMENT_SIZE_BYTES - 1, SEGMENT_SIZE_BYTES + 1])
def test_a_segment_of_the_wrong_length_is_refused(size: int) -> None:
    image, _ = closed_log(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    for sequence in (1, 2):
        content = image[segment_file(sequence)][:size].ljust(size, b"\0")
        if size == 0 and sequence == 2:
            continue  # an empty file is no more than a lost spare
        assert isinstance(refused({**image, segment_file(sequence): content}), CorruptData)


def test_temporary_files_of_a_crash_are_removed() -> None:
    image, state = closed_log(*SMALL)
    temporary = DIRECTORY / (segment_file(3).name + ".new")
    image[temporary] = bytes(1000)
    disk = MemoryDisk.holding(image)
    assert SyncLog(disk).state() == state
    assert temporary not in disk.image()


def test_the_spare_segment_is_used_again_and_one_of_another_size_is_not() -> None:
    image, state = closed_log(*SMALL)
    disk = MemoryDisk.holding(image)
    SyncLog(disk)
    assert set(disk.image()) == {segment_file(1), segment_file(2)}
    log = SyncLog(disk, 2 * SEGMENT_SIZE_BYTES)
    assert log.state() == state
    assert len(disk.image()[segment_file(2)]) == 2 * SEGMENT_SIZE_BYTES
    assert len(disk.image()[segment_file(1)]) == SEGMENT_SIZE_BYTES


def test_what_only_the_page_cache_holds_is_written_again_before_it_is_trusted() -> None:
    """After a failed sync the process ends; the restarted one reads the lost burst from the cache (fsyncgate)."""
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(append(1, 1))
    disk.errors["sync"] = [OSError("write-back failed")]
    log.write(append(2, 2))
    with pytest.raises(OSError, match="write-back"):
        log.sync()
    disk.restart_process()
    log = SyncLog(disk)
    trusted = log.state()
    log.put(append(log.files.last_index + 1, log.files.last_index + 1))
    disk.power_on()
    assert SyncLog(disk).state().entries[: len(trusted.entries)] == trusted.entries


def test_a_base_that_is_not_durable_yet_removes_no_segment() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    for first in range(1, 19, 3):
        log.put(append(first, first + 2, size_bytes=900))
    log.write(WalStep(cut=metadata(5)))
    log.files.accept_cut(metadata(16))  # its step is still on the way when the one before becomes durable
    log.sync()
    disk.power_on()
    state = SyncLog(disk).state()
    assert (state.base, len(state.entries)) == (metadata(5), 13)


def test_compaction_removes_whole_segments_that_hold_only_old_entries_and_never_the_one_in_use() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    for first in range(1, 10, 3):
        log.put(append(first, first + 2, size_bytes=900))
    log.put(WalStep(cut=metadata(3)))
    assert sorted(disk.image()) == [segment_file(2), segment_file(3), segment_file(4)]
    log.put(WalStep(cut=metadata(5)))
    assert sorted(disk.image()) == [segment_file(2), segment_file(3), segment_file(4)]
    log.put(WalStep(cut=metadata(9)))
    assert sorted(disk.image()) == [segment_file(3), segment_file(4)]
    state = SyncLog(disk).state()
    assert (state.base, state.entries) == (metadata(9), ())


def test_segments_that_a_crash_kept_from_being_removed_go_at_the_next_start() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    for first in range(1, 10, 3):
        log.put(append(first, first + 2, size_bytes=900))
    disk.errors["remove"] = [OSError("busy")]
    log.put(WalStep(cut=metadata(8)))
    assert segment_file(1) in disk.image()
    disk.power_on()
    assert SyncLog(disk).state() == State(HardState(), metadata(8), (entry(9, size_bytes=900),))
    assert sorted(disk.image()) == [segment_file(3), segment_file(4)]


def test_a_segment_that_cannot_be_removed_now_keeps_the_later_ones_and_is_removed_with_them() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    for first in range(1, 13, 3):
        log.put(append(first, first + 2, size_bytes=900))
    disk.errors["remove"] = [OSError("busy")]
    log.put(WalStep(cut=metadata(3)))
    log.put(WalStep(cut=metadata(6)))
    assert sorted(disk.image()) == [segment_file(3), segment_file(4), segment_file(5)]


def test_without_space_for_the_next_segment_nothing_of_the_step_is_written() -> None:
    disk = MemoryDisk(capacity_bytes=2 * SEGMENT_SIZE_BYTES)
    log = SyncLog(disk)
    log.put(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    before = disk.image()
    assert set(before) == {segment_file(1), segment_file(2)}
    log.write(append(7, 9, size_bytes=900))
    with pytest.raises(OSError, match="no space"):
        log.sync()
    assert disk.image() == before
    disk.power_on()
    assert SyncLog(disk).state().entries[-1].index == 6


def test_a_segment_whose_making_failed_otherwise_is_not_tried_again() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    disk.errors["sync_directory"] = [OSError("write-back failed")]
    log.put(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    log.write(append(7, 9, size_bytes=900))
    with pytest.raises(OSError, match="write-back failed"):
        log.sync()


def test_space_that_comes_back_in_time_is_used() -> None:
    disk = MemoryDisk(capacity_bytes=2 * SEGMENT_SIZE_BYTES)
    log = SyncLog(disk)
    log.put(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900))
    disk.capacity_bytes = 8 * SEGMENT_SIZE_BYTES
    log.put(append(7, 9, size_bytes=900))
    assert SyncLog(disk).state().entries[-1].index == 9


def test_a_step_larger_than_a_segment_gets_one_of_its_own_size() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    large = append(2, 3, size_bytes=50_000)
    log.put(append(1, 1), large, append(4, 4))
    state = log.state()
    assert state.entries[1:3] == tuple(large.entries)
    assert len(disk.image()[segment_file(2)]) > 100_000
    log.close()
    assert SyncLog(disk).state() == state


def test_an_entry_that_rots_while_the_log_is_open_is_found_when_it_is_read() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(append(1, 3))
    handle = disk.open(segment_file(1))
    content = disk.image()[segment_file(1)]
    at = content.index(b"2@1 ")
    disk.write(handle, bytes([content[at] ^ 1]), at)
    assert [entry.index for entry in log.files.entries(1, 1, 1000)] == [1]
    with pytest.raises(CorruptData) as caught:
        log.files.entries(1, 3, 1000)
    assert caught.value.path == str(segment_file(1))
    assert caught.value.offset_bytes < at


@pytest.mark.parametrize("operations", range(1, 9))
def test_a_power_cut_while_the_cache_is_written_again_leaves_a_log_that_opens(operations: int) -> None:
    for seed in range(20):
        disk = MemoryDisk()
        log = SyncLog(disk)
        log.put(append(1, 1))
        disk.errors["sync"] = [OSError("write-back failed")]
        log.write(append(2, 4, size_bytes=700))
        with pytest.raises(OSError, match="write-back"):
            log.sync()
        disk.restart_process()
        disk.operations_left = operations
        with contextlib.suppress(PowerCut):
            SyncLog(disk)
        disk.power_on(random.Random(f"{seed}/{operations}"))
        assert len(SyncLog(disk).state().entries) in (1, 4)


def test_the_only_segment_left_is_never_taken_for_one_that_was_not_begun() -> None:
    image, state = killed_log(append(1, 3, size_bytes=900), WalStep(reset=metadata(9), hard_state=HardState(3, 7)))
    assert segment_file(1) in image
    disk = MemoryDisk.holding(image)
    log = SyncLog(disk)
    large = WalStep(reset=metadata(20), entries=[entry(21, size_bytes=4500)])
    log.put(large)
    assert segment_file(1) not in disk.image()
    assert bursts(disk.image(), 2) == [(0, log.files._writer.tail.offset)]
    assert SyncLog(MemoryDisk.holding(disk.image())).state() == state.after(large)
    assert isinstance(refused(flipped(disk.image(), segment_file(2), 5, 5)), CorruptData)


def test_a_base_that_only_removed_segments_explain_is_found_missing() -> None:
    disk = MemoryDisk()
    log = SyncLog(disk)
    log.put(append(1, 3, size_bytes=900), append(4, 6, size_bytes=900), append(7, 9, size_bytes=900))
    log.close()
    image = disk.image()
    del image[segment_file(1)]
    assert "with entries up to 3, are missing" in str(refused(image))
