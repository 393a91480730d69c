"""Real files whose disk work can be held up, and opened logs that remember what they told. For the event loop."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from raftkv.errors import StorageError
from raftkv.storage.disk import OsFiles
from raftkv.storage.kernel_sync import KernelSync
from raftkv.storage.log_files import WalSettings
from raftkv.storage.log_opening import open_log
from raftkv.storage.log_writer import WalStep
from raftkv.storage.wal import Wal
from tests.storage.sync_log import State

SETTINGS = WalSettings(segment_size_bytes=1 << 16)
LOG_THREAD = "raftkv-log_0"
SEGMENT_THREAD = "raftkv-segments_0"


def _is_refused() -> bool:
    try:
        KernelSync.open().close()
    except OSError:
        return True
    return False


needs_kernel = pytest.mark.skipif(_is_refused(), reason="this system refuses the kernel's AIO")


class GatedSync(KernelSync):
    """The kernel's background sync, begun and answered as its `Gate` says."""

    gate: Gate
    held: list[int]

    def submit(self, handle: int) -> None:
        if not hasattr(self, "gate"):  # the trial that `open` makes
            super().submit(handle)
        elif self.gate.is_open.is_set():
            self.gate.begin()
            super().submit(handle)
        else:
            self.gate.begin()
            self.held.append(handle)

    def finish(self) -> int:
        number = super().finish()
        return self.gate.error.errno or 0 if hasattr(self, "gate") and self.gate.error is not None else number

    def go_on(self) -> None:
        while self.held:
            super().submit(self.held.pop())


class Gate(OsFiles):
    """Real files. Syncs of an open log wait while it is shut, in the kernel's stead or in the thread; they may fail."""

    def __init__(self, *, has_kernel_sync: bool = True) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.may_make_segments = threading.Event()
        self.may_make_segments.set()
        self.error: OSError | None = None
        self.fails_allocation = False
        self.fails_write = False
        self.sync_threads: list[str] = []
        """Where each sync of the log was begun."""
        self._has_kernel_sync = has_kernel_sync
        self._kernel_syncs: list[GatedSync] = []
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Queue[None] = asyncio.Queue()
        self._has_begun = threading.Event()

    def shut(self) -> None:
        self.is_open.clear()
        self._has_begun.clear()
        while not self._begun.empty():
            self._begun.get_nowait()

    def open_up(self) -> None:
        self.is_open.set()
        for sync in self._kernel_syncs:
            sync.go_on()

    async def until_sync(self) -> None:
        """Until the next sync since `shut` was begun."""
        await self._begun.get()

    def has_begun(self, patience_s: float = 10.0) -> bool:
        """Whether the next sync since `shut` was begun; waits for it without giving the loop a turn."""
        return self._has_begun.wait(patience_s)

    def begin(self) -> None:
        self.sync_threads.append(threading.current_thread().name)
        self._has_begun.set()
        self._loop.call_soon_threadsafe(self._begun.put_nowait, None)

    def open_background_sync(self) -> KernelSync | None:
        if not self._has_kernel_sync or _is_refused():
            return None
        sync = GatedSync.open()
        sync.gate = self
        sync.held = []
        self._kernel_syncs.append(sync)
        return sync

    def sync(self, handle: int) -> None:
        if threading.current_thread().name == LOG_THREAD:
            self.begin()
            self.is_open.wait()
            if self.error is not None:
                raise self.error
        super().sync(handle)

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        if self.fails_write:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(handle, data, offset)

    def allocate(self, handle: int, size: int) -> None:
        if threading.current_thread().name == SEGMENT_THREAD:
            self.may_make_segments.wait()
        if self.fails_allocation:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().allocate(handle, size)


class Opened:
    """A log and what it told. In a running loop."""

    def __init__(self, directory: Path, files: OsFiles | None = None, settings: WalSettings = SETTINGS) -> None:
        self.notified: list[int] = []
        self.failures: list[StorageError] = []
        self.syncs: list[tuple[float, int, int]] = []
        self._told = asyncio.Event()
        self.wal = Wal(
            open_log(directory, settings, files),
            notify=self._notify,
            on_failure=self._fail,
            on_sync=lambda seconds, size, count: self.syncs.append((seconds, size, count)),
        )

    def _notify(self, step_number: int) -> None:
        self.notified.append(step_number)
        self._told.set()

    def _fail(self, error: StorageError) -> None:
        self.failures.append(error)
        self._told.set()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._told.clear()
            await self._told.wait()

    async def wait(self, step_number: int) -> None:
        await self._until(lambda: self.failures or (self.notified and self.notified[-1] >= step_number))
        assert not self.failures

    async def wait_failed(self) -> StorageError:
        await self._until(lambda: self.failures)
        return self.failures[0]

    async def put(self, *steps: WalStep) -> None:
        number = 0
        for step in steps:
            number = self.wal.write(step)
        await self.wait(number)

    def state(self) -> State:
        wal = self.wal
        return State(wal.hard_state, wal.base, tuple(wal.entries(wal.base.last_index + 1, wal.last_index, 1 << 40)))
