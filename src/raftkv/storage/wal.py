"""The log on disk, driven by the event loop: steps go in, and their numbers come back when they are durable.

    write(step) ──queue──> start: take all that is queued, one write, one sync ──> notify(step number)

While one burst is on its way to the disk, everything else that arrives becomes the next one (group commit), so the
number of syncs falls as the load rises. A burst that follows an idle time starts with `start`, or in the loop's next
turn: what is written together shares the burst. `LogFiles` is the whole of the log without the loop; a simulator drives
that on virtual time. `BurstCarrier` brings a burst to the disk without blocking.

**One failed write or sync is final.** Linux marks dirty pages clean when writing them back failed, and reports it once;
a later fsync of the same file then succeeds although the data never reached the disk ("fsyncgate", PostgreSQL
2018; Rebello et al., USENIX ATC 2020; cockroach#37102). So nothing is retried: `on_failure` is called once, nothing is
notified from then on, `write` raises, and the process has to end. Recovery starts from what the disk really holds.

**A full disk** is met when the next segment is made, ahead of its use and before anything of a step is written. If
there is none when it is needed, it is tried once more, and then the log fails as above with the reason in the text:
the steps in question were never acknowledged. The runtime refuses writes long before, by the reserve that it keeps.

Turned down: a writer thread. It was so before, and each burst then cost more in handing over the GIL than in all the
rest (docs/design/log-driving.md). `os.open(..., O_DSYNC)`: it saves a call but blocks the writer for the whole sync.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from raftkv.errors import StorageError, SyncFailed
from raftkv.storage.burst_carrier import BurstCarrier, Carried
from raftkv.storage.disk import FileOps
from raftkv.storage.log_files import LogFiles, WalStats
from raftkv.storage.log_writer import Burst, NumberedStep, WalStep
from raftkv.storage.segment import Segment
from raftkv.types import Entry, HardState, SnapshotMetadata

_log = logging.getLogger(__name__)


class Wal:
    """`LogStorage` on disk. Everything belongs to the loop's thread; only reads may come from any.

    Reads answer for what is durable; an entry that is written but not notified yet may not be seen.
    """

    def __init__(
        self,
        log_files: LogFiles,
        *,
        notify: Callable[[int], None],
        on_failure: Callable[[StorageError], None],
        on_sync: Callable[[float, int, int], None] | None = None,
        carrier: Callable[[FileOps, asyncio.AbstractEventLoop, Carried], BurstCarrier] = BurstCarrier,
    ) -> None:
        """Take over `log_files`, which `open_log` gave. In a running loop.

        `notify(n)`: all steps up to number `n` are durable. `on_failure(error)`: see the module; at most once.
        `on_sync(seconds, bytes, records)`: after each burst, with the time until the loop heard of it. All three are
        called in turns of their own, never from `write`. `carrier` is for a world with another clock.
        """
        self._log_files = log_files
        self._notify = notify
        self._on_failure = on_failure
        self._on_sync = on_sync
        self._loop = asyncio.get_running_loop()
        self._carrier = carrier(log_files.files, self._loop, self._carried)
        self._queue: deque[NumberedStep] = deque()
        self._is_woken = False
        """`_go_on` is going to be called."""
        self._is_busy = False
        """A burst is on its way to the disk, or it waits for the next segment."""
        self._started_s = 0.0
        self._failure: StorageError | None = None
        self._idle: asyncio.Future[None] | None = None
        """What `aclose` waits for."""
        self._closing: asyncio.Task[None] | None = None

    @property
    def hard_state(self) -> HardState:
        return self._log_files.hard_state

    @property
    def base(self) -> SnapshotMetadata:
        return self._log_files.base

    @property
    def last_index(self) -> int:
        return self._log_files.last_index

    @property
    def stats(self) -> WalStats:
        return self._log_files.stats

    def term(self, index: int) -> int:
        return self._log_files.term(index)

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return self._log_files.entries(first, last, max_bytes)

    def index_retaining(self, retained_bytes: int) -> int:
        """The lowest index from which on the log takes at most `retained_bytes` on disk: where it might be cut."""
        return self._log_files.index_retaining(retained_bytes)

    def configurations(self) -> list[Entry]:
        return self._log_files.configurations()

    def write(self, step: WalStep) -> int:
        """Queue a step and return its number, ascending; never blocks. Raises the failure once there is one."""
        if self._failure is not None:
            raise self._failure
        if self._closing is not None:
            raise StorageError("the log is closed")
        number = self._log_files.accept(step)
        self._queue.append((number, step))
        if not (self._is_busy or self._is_woken):
            self._is_woken = True
            self._loop.call_soon(self._go_on)
        return number

    def start(self) -> None:
        """Let what was written in this turn of the loop begin its way to the disk now; never blocks."""
        if self._queue and not self._is_busy and self._failure is None:
            self._start_burst()

    def compact(self, base: SnapshotMetadata) -> None:
        """Let entries up to `base` go. At once in memory; on disk in whole segments, once the base is durable.

        The state machine must hold all of them durably. Nothing happens when the log begins there or further.
        """
        if self._log_files.accept_cut(base):
            self.write(WalStep(cut=base))

    async def aclose(self) -> None:
        """Make everything queued durable (unless the log has failed), prove it, and let all files go. Idempotent.

        From the call on `write` raises; on return everything has been notified, and nothing is any more. It goes on
        if the caller is cancelled, which takes effect only when it is done.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.shield(self._closing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        await self._until_idle()
        if self._failure is None:
            self._start_burst()  # of no steps: the proof that the burst before was durable
            await self._until_idle()
        self._carrier.close()
        await self._loop.run_in_executor(None, self._log_files.close)

    async def _until_idle(self) -> None:
        while self._failure is None and (self._is_busy or self._queue):
            self._idle = self._loop.create_future()
            await self._idle

    def _go_on(self) -> None:
        self._is_woken = False
        if self._is_busy or self._failure is not None:
            return
        if self._queue:
            self._start_burst()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _start_burst(self) -> None:
        try:
            burst = self._log_files.take(self._queue)
            if burst is not None:
                self._is_busy = True
                self._started_s = time.perf_counter()
                self._carrier.start(burst)
            elif self._queue:
                self._is_busy = True
                self._wait_for_segment(self._log_files.request_segment(self._queue))
        except Exception as error:  # noqa: BLE001 -- whatever it was, no step may be acknowledged any more
            self._fail(error)

    def _wait_for_segment(self, segment: Future[Segment]) -> None:
        if segment.done():
            self._segment_is_ready(segment)
        else:
            segment.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._segment_is_ready, done))

    def _segment_is_ready(self, segment: Future[Segment]) -> None:
        try:
            self._log_files.start_segment(segment.result())
        except Exception as error:  # noqa: BLE001 -- as above
            self._fail(error)
        else:
            self._start_burst()

    def _carried(self, burst: Burst, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started_s
        if error is not None:
            self._fail(error)
            return
        try:
            self._log_files.complete(burst, seconds)
        except Exception as cause:  # noqa: BLE001 -- as above
            self._fail(cause)
            return
        self._is_busy = False
        try:
            if burst.last_step:
                self._notify(burst.last_step)
            if self._on_sync is not None:
                self._on_sync(seconds, len(burst.data), burst.record_count)
        finally:
            self._go_on()

    def _fail(self, error: BaseException) -> None:
        directory = self._log_files.directory
        self._failure = SyncFailed(
            f"cannot write the log in {directory}, what was under way is not acknowledged: {error}"
        )
        self._failure.__cause__ = error
        _log.critical("%s", self._failure)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._on_failure(self._failure)
