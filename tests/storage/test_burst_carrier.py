"""Which way a burst goes to the disk: inline and through the kernel, or in a thread."""

from __future__ import annotations

import asyncio
import errno
import select
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from raftkv.storage import kernel_sync
from raftkv.storage.burst_carrier import (
    INLINE_MAX_BYTES,
    SLOW_WRITE_S,
    THREAD_PERIOD_S,
    BurstCarrier,
    thread_sleep_count,
)
from raftkv.storage.disk import OsFiles
from raftkv.storage.log_files import LogFiles, WalSettings
from raftkv.storage.log_opening import open_log
from raftkv.storage.log_writer import Burst, NumberedStep
from tests.storage.gates import LOG_THREAD, needs_kernel
from tests.storage.sync_log import append

LOOP = "the loop"
THREAD = "a thread"


class Disk(OsFiles):
    """Real files that remember where the log was written, with a clock that each write moves by `write_s`.

    Whether the thread slept meanwhile is `does_sleep`.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.write_s = 0.0
        self.does_sleep = True
        self.sleep_count = 0
        self.writers: list[str] = []
        self.write_error: OSError | None = None

    def clock(self) -> float:
        return self.now_s

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        name = threading.current_thread().name
        if name in (LOG_THREAD, threading.main_thread().name):
            self.writers.append(THREAD if name == LOG_THREAD else LOOP)
            self.now_s += self.write_s
            self.sleep_count += self.does_sleep
            if self.write_error is not None:
                raise self.write_error
        return super().write(handle, data, offset)


class Carried:
    """A carrier on the log in a directory; `put` carries one burst and answers how it ended."""

    def __init__(self, log: LogFiles, disk: Disk) -> None:
        self.log = log
        self.disk = disk
        disk.writers.clear()  # of the recovery
        self._ended: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self._next = log.last_index
        self.carrier = BurstCarrier(
            disk, asyncio.get_running_loop(), self._carried, clock=disk.clock, sleep_count=lambda: disk.sleep_count
        )

    def _carried(self, burst: Burst, error: BaseException | None) -> None:
        if error is None:
            self.log.complete(burst, 0.0)
        self._ended.put_nowait(error)

    async def put(self, size_bytes: int = 100) -> BaseException | None:
        self._next += 1
        step = append(self._next, self._next, size_bytes=size_bytes)
        pending: deque[NumberedStep] = deque([(self.log.accept(step), step)])
        burst = self.log.take(pending)
        assert burst is not None
        self.carrier.start(burst)
        assert self._ended.empty(), "told before start returned"
        return await self._ended.get()

    async def writers_of(self, *sizes: int) -> list[str]:
        for size_bytes in sizes:
            assert await self.put(size_bytes) is None
        writers = self.disk.writers[:]
        self.disk.writers.clear()
        return writers


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def play(tmp_path: Path, disk: Disk) -> Iterator[Callable[[Callable[[Carried], Awaitable[None]]], None]]:
    settings = WalSettings(segment_size_bytes=1 << 22)
    log = open_log(tmp_path / "wal", settings, disk)

    def run(story: Callable[[Carried], Awaitable[None]]) -> None:
        async def main() -> None:
            carried = Carried(log, disk)
            await asyncio.wait_for(story(carried), 60)
            carried.carrier.close()

        asyncio.run(main())

    yield run
    log.close()


Play = Callable[[Callable[[Carried], Awaitable[None]]], None]


@needs_kernel
def test_a_burst_is_written_in_the_loop_unless_it_is_large(play: Play) -> None:
    async def story(carried: Carried) -> None:
        margin = 1000  # of heads
        assert await carried.writers_of(1, INLINE_MAX_BYTES - margin) == [LOOP, LOOP]
        assert await carried.writers_of(INLINE_MAX_BYTES) == [THREAD]
        assert await carried.writers_of(1) == [LOOP]

    play(story)


@needs_kernel
def test_after_a_slow_write_the_thread_is_used_for_a_time(play: Play, disk: Disk) -> None:
    async def story(carried: Carried) -> None:
        disk.write_s = SLOW_WRITE_S / 2
        assert await carried.writers_of(1, 1) == [LOOP, LOOP]
        disk.write_s = SLOW_WRITE_S * 2
        assert await carried.writers_of(1, 1, 1) == [LOOP, THREAD, THREAD]
        disk.write_s = 0.0
        disk.now_s += THREAD_PERIOD_S - 1.0
        assert await carried.writers_of(1) == [THREAD]
        disk.now_s += 1.0
        assert await carried.writers_of(1, 1) == [LOOP, LOOP]

    play(story)


@needs_kernel
def test_a_write_that_was_only_preempted_says_nothing_about_the_disk(play: Play, disk: Disk) -> None:
    async def story(carried: Carried) -> None:
        disk.write_s = SLOW_WRITE_S * 2
        disk.does_sleep = False
        assert await carried.writers_of(1, 1, 1) == [LOOP, LOOP, LOOP]

    play(story)


@needs_kernel
def test_the_kernel_counts_how_often_a_thread_slept() -> None:
    before = thread_sleep_count()
    select.select([], [], [], 0.001)
    assert thread_sleep_count() > before


def test_without_the_kernel_everything_goes_through_the_thread(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel_sync, "_CALLS", {})
    caplog.set_level("INFO")

    async def story(carried: Carried) -> None:
        assert await carried.writers_of(1, 1) == [THREAD, THREAD]

    play(story)
    assert "the log uses a thread" in caplog.text


@needs_kernel
@pytest.mark.parametrize("size_bytes", [1, INLINE_MAX_BYTES], ids=["inline", "thread"])
def test_a_failed_write_is_told_whichever_way_it_went(play: Play, disk: Disk, size_bytes: int) -> None:
    disk.write_error = OSError(errno.EIO, "Input/output error")

    async def story(carried: Carried) -> None:
        try:
            error = await carried.put(size_bytes)
        except OSError as raised:
            error = raised
        assert error is disk.write_error

    play(story)
