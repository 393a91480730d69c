"""The log in an event loop, on real files."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raftkv.errors import CorruptData, InvariantViolation, StorageError, SyncFailed
from raftkv.storage.log_files import WalSettings
from raftkv.storage.log_opening import found_log, open_log
from raftkv.storage.log_writer import WalStep
from raftkv.types import HardState
from tests.storage.gates import SETTINGS, Gate, Opened
from tests.storage.sync_log import State, append, entry, metadata, vote

Story = Callable[[Path, Gate], Awaitable[None]]
BOTH = pytest.mark.parametrize("has_kernel_sync", [True, False], ids=["kernel", "thread"])


def play(directory: Path, story: Story, *, has_kernel_sync: bool = True) -> None:
    async def main() -> None:
        gate = Gate(has_kernel_sync=has_kernel_sync)
        try:
            await asyncio.wait_for(story(directory / "wal", gate), 60)
        finally:
            gate.may_make_segments.set()
            gate.open_up()

    asyncio.run(main())


@BOTH
def test_steps_are_numbered_and_notified_in_order_once_they_are_durable(tmp_path: Path, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        numbers = [log.wal.write(append(index, index)) for index in range(1, 101)]
        assert log.notified == []
        await log.wait(numbers[-1])
        await log.wal.aclose()
        assert numbers == list(range(1, 101))
        assert log.notified == sorted(set(log.notified))
        assert log.notified[-1] == 100

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


@BOTH
def test_nothing_is_notified_or_read_before_its_sync_has_ended(tmp_path: Path, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        gate.shut()
        log.wal.write(append(1, 1))
        await gate.until_sync()
        assert (log.notified, log.wal.last_index) == ([], 0)
        gate.open_up()
        await log.wait(1)
        assert log.wal.last_index == 1
        await log.wal.aclose()

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


@BOTH
def test_everything_queued_during_one_sync_shares_the_next(tmp_path: Path, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        gate.shut()
        log.wal.write(append(1, 1))
        await gate.until_sync()
        for index in range(2, 52):
            log.wal.write(append(index, index))
        gate.open_up()
        await log.wait(51)
        assert log.notified == [1, 51]
        assert [count for _, _, count in log.syncs] == [1, 50]
        assert log.wal.stats.sync_count == 2
        await log.wal.aclose()

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


def test_everything_written_in_one_turn_shares_a_sync_that_begins_after_it(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        log.wal.write(append(1, 1))
        log.wal.write(append(2, 2))
        log.wal.write(vote(3))
        assert gate.sync_threads == []
        await log.wait(3)
        assert log.notified == [3]
        await log.wal.aclose()

    play(tmp_path, story)


@BOTH
def test_a_burst_begins_in_the_next_turn_and_with_start_at_once(tmp_path: Path, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        gate.shut()
        log.wal.write(append(1, 1))
        assert not gate.has_begun(patience_s=0.05)
        await asyncio.sleep(0)
        assert gate.has_begun()
        gate.open_up()
        await log.wait(1)

        gate.shut()
        log.wal.write(append(2, 2))
        log.wal.start()
        assert gate.has_begun(), "although the loop has not had a turn"
        assert log.notified == [1], "it is begun, not waited for"
        log.wal.write(append(3, 3))
        log.wal.start()
        assert len(gate.sync_threads) == 2, "one burst at a time"
        gate.open_up()
        await log.wait(3)
        assert [count for _, _, count in log.syncs] == [1, 1, 1]
        await log.wal.aclose()

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


def test_start_without_anything_written_does_nothing(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        log.wal.start()
        assert gate.sync_threads == []
        await log.put(append(1, 1))
        log.wal.start()
        assert len(gate.sync_threads) == 1
        await log.wal.aclose()
        log.wal.start()

    play(tmp_path, story)


@BOTH
def test_aclose_makes_everything_queued_durable(tmp_path: Path, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        for index in range(1, 21):
            log.wal.write(append(index, index, size_bytes=9000))
        log.wal.write(vote(5, 3))
        await log.wal.aclose()
        await log.wal.aclose()
        assert log.notified[-1] == 21
        with pytest.raises(StorageError, match="closed"):
            log.wal.write(vote(6))
        again = Opened(directory)
        assert again.state() == State(HardState(5, 3), entries=tuple(append(1, 20, size_bytes=9000).entries))
        await again.wal.aclose()

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


@BOTH
def test_aclose_during_a_sync_waits_for_it_and_for_what_is_queued_also_when_cancelled(
    tmp_path: Path, has_kernel_sync: bool
) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing, not files
        log = Opened(directory, gate)
        gate.shut()
        log.wal.write(append(1, 1))
        await gate.until_sync()
        log.wal.write(append(2, 2))
        closing = asyncio.create_task(log.wal.aclose())
        await asyncio.sleep(0)
        with pytest.raises(StorageError, match="closed"):
            log.wal.write(append(3, 3))
        closing.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
        gate.open_up()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert log.notified == [1, 2]
        assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
        again = Opened(directory)
        assert again.wal.last_index == 2
        await again.wal.aclose()

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


@BOTH
@pytest.mark.parametrize("call", ["sync", "write"])
def test_one_failure_is_final_and_told_once(tmp_path: Path, call: str, has_kernel_sync: bool) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        await log.put(append(1, 1))
        gate.shut()
        log.wal.write(append(2, 2))
        await gate.until_sync()
        log.wal.write(append(3, 3))
        if call == "sync":
            gate.error = OSError(errno.EIO, "Input/output error")
        else:
            gate.fails_write = True
        gate.open_up()
        error = await log.wait_failed()
        gate.error = None  # a later sync would succeed; it must not be asked
        gate.fails_write = False
        syncs = len(gate.sync_threads)
        assert isinstance(error, SyncFailed)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EIO
        assert str(directory) in str(error)
        with pytest.raises(SyncFailed):
            log.wal.write(append(4, 4))
        await log.wal.aclose()
        assert log.notified == ([1] if call == "sync" else [1, 2])
        assert log.failures == [error]
        assert log.wal.last_index == log.notified[-1]
        assert len(gate.sync_threads) == syncs

    play(tmp_path, story, has_kernel_sync=has_kernel_sync)


def test_aclose_ends_when_the_log_fails_meanwhile(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        gate.shut()
        log.wal.write(append(1, 1))
        await gate.until_sync()
        closing = asyncio.create_task(log.wal.aclose())
        await asyncio.sleep(0)
        gate.error = OSError(errno.EIO, "Input/output error")
        gate.open_up()
        await closing
        assert (log.notified, len(log.failures)) == ([], 1)

    play(tmp_path, story)


def test_the_loop_goes_on_while_the_next_segment_is_not_ready(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        gate.may_make_segments.clear()
        log = Opened(directory, gate)
        in_first = [log.wal.write(append(index, index, size_bytes=20_000)) for index in range(1, 4)][-1]
        in_second = log.wal.write(append(4, 4, size_bytes=20_000))
        await log.wait(in_first)
        # If it blocked the loop, this would never be reached: only this turn lets the segment be made.
        for _ in range(10):
            await asyncio.sleep(0)
        assert log.notified[-1] == in_first
        queued_behind = log.wal.write(vote(2))
        gate.may_make_segments.set()
        await log.wait(queued_behind)
        assert log.notified == [in_first, queued_behind]
        assert in_second < queued_behind
        assert log.wal.stats.segment_count == 2
        await log.wal.aclose()

    play(tmp_path, story)


def test_a_full_disk_fails_the_log_with_the_reason_and_nothing_false_is_notified(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        gate.fails_allocation = True
        numbers = [log.wal.write(append(index, index, size_bytes=30_000)) for index in range(1, 9)]
        assert "No space left" in str(await log.wait_failed())
        await log.wal.aclose()
        acknowledged = log.notified[-1]
        assert acknowledged < numbers[-1]
        again = Opened(directory)
        assert len(again.state().entries) >= acknowledged
        await again.wal.aclose()

    play(tmp_path, story)


def test_reads_in_a_thread_go_on_while_it_writes_truncates_and_compacts(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        wal = log.wal
        problems: list[str] = []
        stop = threading.Event()
        await log.put(append(1, 50, size_bytes=2000))

        def read() -> None:
            while not stop.is_set():
                first = wal.base.last_index + 1
                try:
                    found = wal.entries(first, wal.last_index, 1 << 20)
                except InvariantViolation:
                    continue  # the log was cut or truncated between the two reads
                wrong = [at for at, got in enumerate(found, first) if got.index != at]
                if wrong or not found or found[0].data != entry(first, found[0].term, 2000).data:
                    problems.append(f"read {found[:1]} at {first}")

        reader = asyncio.create_task(asyncio.to_thread(read))
        last_index = 50
        for round_number in range(2, 60):
            number = wal.write(append(last_index - 4, last_index + 8, round_number, size_bytes=2000))
            last_index += 8
            await log.wait(number)
            if round_number % 10 == 0:
                wal.compact(metadata(last_index - 40, wal.term(last_index - 40)))
        stop.set()
        await reader
        state = log.state()
        await wal.aclose()
        assert problems == []
        assert len(os.listdir(directory)) < 10  # noqa: PTH208
        again = Opened(directory)
        assert again.state() == state
        await again.wal.aclose()

    play(tmp_path, story)


def test_compact_moves_the_base_at_once_and_removes_files_soon(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        await log.put(*[append(index, index, size_bytes=20_000) for index in range(1, 21)])
        segment_count = log.wal.stats.segment_count
        log.wal.compact(metadata(18))
        assert log.wal.base == metadata(18)
        log.wal.compact(metadata(5))
        assert log.wal.base == metadata(18)
        await log.put(append(21, 21))
        await log.wal.aclose()
        assert log.wal.stats.segment_count < segment_count
        again = Opened(directory)
        assert (again.wal.base, again.wal.last_index) == (metadata(18), 21)
        await again.wal.aclose()

    play(tmp_path, story)


def test_the_index_of_a_hundred_thousand_entries_is_small(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        settings = WalSettings(segment_size_bytes=1 << 23)
        log = Opened(directory, gate, settings)
        for first in range(1, 100_001, 1000):
            log.wal.write(append(first, first + 999, size_bytes=8))
        await log.put(vote(1))
        index = log.wal._log_files._index
        arrays = (index._positions, index._lengths, index._terms)
        assert sum(len(each) * each.itemsize for each in arrays) == 20 * 100_000
        assert log.wal.entries(77_777, 77_777, 0) == [entry(77_777, size_bytes=8)]
        await log.wal.aclose()
        again = Opened(directory, gate, settings)
        expected = [*append(99_999, 100_000, size_bytes=8).entries]
        assert (again.wal.last_index, again.wal.entries(99_999, 100_000, 100)) == (100_000, expected)
        await again.wal.aclose()

    play(tmp_path, story)


def test_index_retaining_finds_where_a_number_of_bytes_begins(tmp_path: Path) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        await log.put(*[append(index, index, size_bytes=10_000) for index in range(1, 41)])
        for retained, at_least in ((0, 41), (25_000, 39), (100_000, 30), (1 << 30, 1)):
            first = log.wal.index_retaining(retained)
            assert at_least <= first <= at_least + 3 + retained // 50_000, retained
        await log.wal.aclose()

    play(tmp_path, story)


@pytest.mark.parametrize(
    "step",
    [append(5, 5), WalStep(entries=[entry(4), entry(6)]), WalStep(reset=metadata(10), entries=[entry(10)])],
    ids=["a gap before", "a gap within", "not behind the base"],
)
def test_a_step_that_does_not_continue_the_log_is_our_bug(tmp_path: Path, step: WalStep) -> None:
    async def story(directory: Path, gate: Gate) -> None:
        log = Opened(directory, gate)
        await log.put(append(1, 3))
        with pytest.raises(InvariantViolation):
            log.wal.write(step)
        await log.put(append(4, 4))
        await log.wal.aclose()

    play(tmp_path, story)


def test_what_found_log_made_is_there(tmp_path: Path) -> None:
    found_log(tmp_path / "wal", WalStep(reset=metadata(9, 2), hard_state=HardState(3, 7)), SETTINGS)
    log = open_log(tmp_path / "wal", SETTINGS)
    assert (log.base, log.hard_state, log.last_index) == (metadata(9, 2), HardState(3, 7), 9)
    log.close()


def test_a_damaged_log_is_refused_with_file_and_offset_and_its_files_are_let_go(tmp_path: Path) -> None:
    found_log(tmp_path / "wal", append(1, 3), SETTINGS)
    path = tmp_path / "wal" / "0000000000000001.wal"
    content = bytearray(path.read_bytes())
    content[content.index(b"2@1")] ^= 4
    path.write_bytes(content)
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing, not files
    with pytest.raises(CorruptData) as caught:
        open_log(tmp_path / "wal", SETTINGS)
    assert caught.value.path == str(path)
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    assert path.read_bytes() == content


def test_a_directory_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "wal").write_text("a file")
    with pytest.raises(StorageError, match="cannot open the log"):
        open_log(tmp_path / "wal")
