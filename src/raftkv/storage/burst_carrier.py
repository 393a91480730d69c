"""Brings one burst after another to the disk without holding up the event loop: inline and kernel, or a thread.

*Inline*: the write is done at once, in the loop (it is a copy to the page cache), and the kernel syncs it in the
background (`kernel_sync`). *Thread*: write and sync in a thread of its own, at the price of a hand-over there and back.

Inline is the rule. The thread is taken

- where the kernel has no background sync for us;
- for a burst over `INLINE_MAX_BYTES`: copying it takes as long as the hand-over costs;
- for `THREAD_PERIOD_S` after an inline write blocked for longer than `SLOW_WRITE_S`: as it does while the kernel
  throttles dirty pages, or ext4 commits its journal. Nothing tells before, and what was slow once mostly is again.

So a disk that has become slow costs the loop at most one such wait in each period. A write that was only preempted did
not block: with more work than processors that happens several times a second and says nothing about the disk (on two
busy cores, of 120 writes that took 2 to 21 ms not one had slept). The kernel counts the two apart, as voluntary and
involuntary context switches of the thread.

Turned down: `RWF_NOWAIT`, with which a write refuses instead of blocking: ext4 does not know it for buffered writes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from raftkv.errors import InvariantViolation
from raftkv.storage.disk import Executor, FileOps, write_fully
from raftkv.storage.log_writer import Burst
from raftkv.storage.recovery import write_burst

INLINE_MAX_BYTES = 256 << 10
"""Writing so much takes 65 us (16 KiB: 14 us, 1 MiB: 190 us); the thread takes about 100 us more than inline."""
SLOW_WRITE_S = 0.010
"""Less than half a tick of the node, and more than a moment of sleep and a wait for a busy processor take together."""
THREAD_PERIOD_S = 10.0
"""Overload of a disk lasts for seconds; one wait in ten seconds is too rare for the 99.9th percentile."""


Carried = Callable[[Burst, BaseException | None], None]

_log = logging.getLogger(__name__)


def thread_sleep_count() -> int:
    """Of the calling thread; takes 0.6 us. Linux only, but elsewhere nothing is written inline."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class BurstCarrier:
    """For the loop's thread; one burst at a time."""

    def __init__(
        self,
        files: FileOps,
        loop: asyncio.AbstractEventLoop,
        carried: Carried,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep_count: Callable[[], int] = thread_sleep_count,
        executor: Executor | None = None,
    ) -> None:
        """`carried(burst, error)` tells the end of each, always in a later turn of the loop.

        `sleep_count` is how often this thread has had to wait for something else than a processor; `executor` is where
        the thread's way leads, by default one thread that starts with its first task.
        """
        self._files = files
        self._loop = loop
        self._carried = carried
        self._clock = clock
        self._sleep_count = sleep_count
        self._executor = executor or ThreadPoolExecutor(1, "raftkv-log")
        self._inline_from_s = 0.0
        """By `clock`."""
        self._in_kernel: Burst | None = None
        """Being synced by the kernel."""
        self._kernel_sync = files.open_background_sync()
        if self._kernel_sync is not None:
            loop.add_reader(self._kernel_sync.fileno(), self._synced)

    def start(self, burst: Burst) -> None:
        """Begin to make `burst` durable. May raise `OSError` at once, which is as final as one that is told later."""
        if self._kernel_sync is None or len(burst.data) > INLINE_MAX_BYTES or self._is_avoiding_inline():
            future = self._executor.submit(write_burst, self._files, burst)
            future.add_done_callback(partial(self._thread_ended, burst))
            return
        self._write_inline(burst)
        self._kernel_sync.submit(burst.segment.handle)
        self._in_kernel = burst

    def close(self) -> None:
        """Nothing may be under way."""
        if self._kernel_sync is not None:
            self._loop.remove_reader(self._kernel_sync.fileno())
            self._kernel_sync.close()
            self._kernel_sync = None
        self._executor.shutdown()

    def _write_inline(self, burst: Burst) -> None:
        sleep_count = self._sleep_count()
        started_s = self._clock()
        write_fully(self._files, burst.segment.handle, burst.data, burst.offset)
        ended_s = self._clock()
        if ended_s - started_s > SLOW_WRITE_S and self._sleep_count() != sleep_count:
            self._inline_from_s = ended_s + THREAD_PERIOD_S
            _log.info("a log write blocked for %.0f ms, a thread writes for a time", (ended_s - started_s) * 1000)

    def _is_avoiding_inline(self) -> bool:
        return self._inline_from_s != 0.0 and self._clock() < self._inline_from_s

    def _synced(self) -> None:
        burst, self._in_kernel = self._in_kernel, None
        if burst is None or self._kernel_sync is None:
            raise InvariantViolation("the kernel told the end of a sync that nobody asked for")
        error: OSError | None = None
        try:
            if number := self._kernel_sync.finish():
                error = OSError(number, os.strerror(number))
        except OSError as cause:
            error = cause
        self._carried(burst, error)

    def _thread_ended(self, burst: Burst, future: Future[None]) -> None:
        self._loop.call_soon_threadsafe(self._carried, burst, future.exception())
