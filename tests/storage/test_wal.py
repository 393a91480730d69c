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
from tests.storage.gates import Gate, Opened
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


def test_steps_are_numbered_and_notified_in_order_once_they_are_durable(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal")
    numbers = [log.wal.write(append(index, index)) for index in range(1, 101)]
    log.wait(numbers[-1])
    log.wal.close()
    assert numbers == list(range(1, 101))
    assert log.notified == sorted(set(log.notified))
    assert log.notified[-1] == 100


def test_nothing_is_notified_or_read_before_its_sync_has_ended(tmp_path: Path, gate: Gate) -> None:
    log = Opened(tmp_path / "wal", gate)
    gate.is_open.clear()
    log.wal.write(append(1, 1))
    gate.waiting.acquire()
    assert (log.notified, log.wal.last_index) == ([], 0)
    gate.is_open.set()
    log.wait(1)
    assert log.wal.last_index == 1
    log.wal.close()


def test_everything_queued_during_one_sync_shares_the_next(tmp_path: Path, gate: Gate) -> None:
    log = Opened(tmp_path / "wal", gate)
    gate.is_open.clear()
    log.wal.write(append(1, 1))
    gate.waiting.acquire()
    for index in range(2, 52):
        log.wal.write(append(index, index))
    gate.is_open.set()
    log.wait(51)
    assert log.notified == [1, 51]
    assert [count for _, _, count in log.syncs][:2] == [1, 50]
    assert log.wal.stats.sync_count == 2
    log.wal.close()


def test_close_makes_everything_queued_durable(tmp_path: Path, gate: Gate) -> None:
    log = Opened(tmp_path / "wal", gate)
    for index in range(1, 21):
        log.wal.write(append(index, index, size_bytes=9000))
    log.wal.write(vote(5, 3))
    log.wal.close()
    log.wal.close()
    assert log.notified[-1] == 21
    with pytest.raises(StorageError, match="closed"):
        log.wal.write(vote(6))
    again = Opened(tmp_path / "wal")
    assert again.state() == State(HardState(5, 3), entries=tuple(append(1, 20, size_bytes=9000).entries))
    again.wal.close()


@pytest.mark.parametrize("call", ["sync", "write"])
def test_one_failure_is_final_and_told_once(
    tmp_path: Path, gate: Gate, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Opened(tmp_path / "wal", gate)
    log.put(append(1, 1))
    gate.is_open.clear()
    log.wal.write(append(2, 2))
    gate.waiting.acquire()
    gate.waiting.acquire()
    log.wal.write(append(3, 3))
    failure = OSError(errno.EIO, "Input/output error")
    if call == "sync":
        gate.error = failure
    else:
        monkeypatch.setattr(Gate, "write", lambda *_: (_ for _ in ()).throw(failure))
    gate.is_open.set()
    error = log.wait_failed()
    gate.error = None  # a later sync would succeed; it must not be asked
    assert isinstance(error, SyncFailed)
    assert error.__cause__ is failure
    assert str(tmp_path) in str(error)
    with pytest.raises(SyncFailed):
        log.wal.write(append(4, 4))
    log.wal.close()
    assert log.notified == ([1] if call == "sync" else [1, 2])
    assert log.failures == [error]
    assert log.wal.last_index == log.notified[-1]


def test_a_full_disk_fails_the_log_with_the_reason_and_nothing_false_is_notified(tmp_path: Path, gate: Gate) -> None:
    log = Opened(tmp_path / "wal", gate)
    gate.fails_allocation = True
    numbers = [log.wal.write(append(index, index, size_bytes=30_000)) for index in range(1, 9)]
    assert "No space left" in str(log.wait_failed())
    log.wal.close()
    acknowledged = log.notified[-1]
    assert acknowledged < numbers[-1]
    again = Opened(tmp_path / "wal")
    assert len(again.state().entries) >= acknowledged
    again.wal.close()


def test_reads_of_old_and_new_entries_go_on_while_it_writes_truncates_and_compacts(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal")
    wal = log.wal
    problems: list[str] = []
    stop = threading.Event()
    log.put(append(1, 50, size_bytes=2000))

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

    reader = threading.Thread(target=read)
    reader.start()
    last_index = 50
    for round_number in range(2, 60):
        number = wal.write(append(last_index - 4, last_index + 8, round_number, size_bytes=2000))
        last_index += 8
        log.wait(number)
        if round_number % 10 == 0:
            wal.compact(metadata(last_index - 40, wal.term(last_index - 40)))
    stop.set()
    reader.join()
    state = log.state()
    wal.close()
    assert problems == []
    assert len(list((tmp_path / "wal").iterdir())) < 10
    again = Opened(tmp_path / "wal")
    assert again.state() == state
    again.wal.close()


def test_compact_moves_the_base_at_once_and_removes_files_soon(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal")
    log.put(*[append(index, index, size_bytes=20_000) for index in range(1, 21)])
    segment_count = log.wal.stats.segment_count
    log.wal.compact(metadata(18))
    assert log.wal.base == metadata(18)
    log.wal.compact(metadata(5))
    assert log.wal.base == metadata(18)
    log.put(append(21, 21))
    log.wal.close()
    assert log.wal.stats.segment_count < segment_count
    again = Opened(tmp_path / "wal")
    assert (again.wal.base, again.wal.last_index) == (metadata(18), 21)
    again.wal.close()


def test_the_index_of_a_hundred_thousand_entries_is_small(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal", settings=WalSettings(segment_size_bytes=1 << 23))
    for first in range(1, 100_001, 1000):
        log.wal.write(append(first, first + 999, size_bytes=8))
    log.put(vote(1))
    index = log.wal._log_files._index
    arrays = (index._positions, index._lengths, index._terms)
    assert sum(len(each) * each.itemsize for each in arrays) == 20 * 100_000
    assert log.wal.entries(77_777, 77_777, 0) == [entry(77_777, size_bytes=8)]
    log.wal.close()
    again = Opened(tmp_path / "wal", settings=WalSettings(segment_size_bytes=1 << 23))
    assert (again.wal.last_index, again.wal.entries(99_999, 100_000, 100)) == (
        100_000,
        [*append(99_999, 100_000, size_bytes=8).entries],
    )
    again.wal.close()


def test_index_retaining_finds_where_a_number_of_bytes_begins(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal")
    log.put(*[append(index, index, size_bytes=10_000) for index in range(1, 41)])
    for retained, at_least in ((0, 41), (25_000, 39), (100_000, 30), (1 << 30, 1)):
        first = log.wal.index_retaining(retained)
        assert at_least <= first <= at_least + 3 + retained // 50_000, retained
    log.wal.close()


@pytest.mark.parametrize(
    "step",
    [append(5, 5), WalStep(entries=[entry(4), entry(6)]), WalStep(reset=metadata(10), entries=[entry(10)])],
    ids=["a gap before", "a gap within", "not behind the base"],
)
def test_a_step_that_does_not_continue_the_log_is_our_bug(tmp_path: Path, step: WalStep) -> None:
    log = Opened(tmp_path / "wal")
    log.put(append(1, 3))
    with pytest.raises(InvariantViolation):
        log.wal.write(step)
    log.put(append(4, 4))
    log.wal.close()


def test_a_damaged_log_is_refused_with_file_and_offset_and_its_files_are_let_go(tmp_path: Path) -> None:
    log = Opened(tmp_path / "wal")
    log.put(append(1, 3))
    log.wal.close()
    path = tmp_path / "wal" / "0000000000000001.wal"
    content = bytearray(path.read_bytes())
    content[content.index(b"2@1")] ^= 4
    path.write_bytes(content)
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing, not files
    with pytest.raises(CorruptData) as caught:
        Opened(tmp_path / "wal")
    assert caught.value.path == str(path)
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    assert path.read_bytes() == content


def test_a_directory_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "wal").write_text("a file")
    with pytest.raises(StorageError, match="cannot open the log"):
        Opened(tmp_path / "wal")
