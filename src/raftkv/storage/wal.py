"""The log on disk: steps go in from one thread, one writer thread makes them durable, reads come from any.

    write(step) ──queue──> writer thread: take all that is queued, one write, one sync ──> notify(step number)

While one sync runs, everything else that arrives becomes the next burst (group commit), so the number of syncs
falls as the load rises. `LogFiles` is the whole of it without the thread; a simulator drives that on virtual time.

**One failed write or sync is final.** Linux marks dirty pages clean when writing them back failed, and reports it once;
a later fsync of the same file then succeeds although the data never reached the disk ("fsyncgate", PostgreSQL
2018; Rebello et al., USENIX ATC 2020; cockroach#37102). So nothing is retried: `on_failure` is called once, nothing is
notified from then on, `write` raises, and the process has to end. Recovery starts from what the disk really holds.

**A full disk** is met when the next segment is made, ahead of its use and before anything of a step is written. If
there is none when it is needed, it is tried once more, and then the log fails as above with the reason in the text:
the steps in question were never acknowledged. The runtime refuses writes long before, by `disk.is_below_reserve`.

Turned down: `os.open(..., O_DSYNC)`: it saves a call but ties the sync to each write; and writing from the event loop
with only the sync in a thread: a write blocks for as long as the kernel throttles dirty pages.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raftkv.errors import StorageError, SyncFailed
from raftkv.storage.disk import FileOps, OsFiles
from raftkv.storage.log_files import LogFiles, WalSettings, WalStats
from raftkv.storage.log_writer import NumberedStep, WalStep
from raftkv.storage.recovery import write_burst
from raftkv.types import Entry, HardState, SnapshotMetadata

_log = logging.getLogger(__name__)


class Wal:
    """`LogStorage` on disk. `write`, `compact` and `close` belong to one thread; reads may come from any.

    Reads answer for what is durable; an entry that is written but not notified yet may not be seen.
    """

    def __init__(
        self,
        log_files: LogFiles,
        executor: ThreadPoolExecutor,
        notify: Callable[[int], None],
        on_failure: Callable[[StorageError], None],
        on_sync: Callable[[float, int, int], None] | None,
    ) -> None:
        """Use `open`."""
        self._log_files = log_files
        self._executor = executor
        self._notify = notify
        self._on_failure = on_failure
        self._on_sync = on_sync
        self._queue: queue.SimpleQueue[NumberedStep | None] = queue.SimpleQueue()
        self._failure: StorageError | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="raftkv-wal", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: WalSettings | None = None,
        *,
        notify: Callable[[int], None],
        on_failure: Callable[[StorageError], None],
        on_sync: Callable[[float, int, int], None] | None = None,
        files: FileOps | None = None,
    ) -> Wal:
        """Recover the log in `directory`, or make an empty one.

        `notify(n)`: all steps up to number `n` are durable. `on_failure(error)`: see the module; at most once.
        `on_sync(seconds, bytes, records)`: after each sync. All three are called from the writer thread and must be
        quick. Raises `CorruptData`, `DataDirectoryError` (nothing on disk was changed) or `StorageError`.
        """
        executor = ThreadPoolExecutor(1, "raftkv-segments")
        try:
            log_files = LogFiles.open(files or OsFiles(), directory, settings or WalSettings(), executor)
        except OSError as error:
            executor.shutdown()
            raise StorageError(f"cannot open the log in {directory}: {error}") from error
        except BaseException:
            executor.shutdown()
            raise
        return cls(log_files, executor, notify, on_failure, on_sync)

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
        if self._is_closed:
            raise StorageError("the log is closed")
        number = self._log_files.accept(step)
        self._queue.put((number, step))
        return number

    def compact(self, base: SnapshotMetadata) -> None:
        """Let entries up to `base` go. At once in memory; on disk in whole segments, once the base is durable.

        The state machine must hold all of them durably. Nothing happens when the log begins there or further.
        """
        if self._log_files.accept_cut(base):
            self.write(WalStep(cut=base))

    def close(self) -> None:
        """Make everything queued durable (unless the log has failed), prove it, and end the threads."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        self._executor.shutdown()
        self._log_files.close()

    def _run(self) -> None:
        try:
            self._write_queued()
        except Exception as error:  # noqa: BLE001 -- whatever it was, no step may be acknowledged any more
            directory = self._log_files.directory
            failure = SyncFailed(
                f"cannot write the log in {directory}, what was under way is not acknowledged: {error}"
            )
            failure.__cause__ = error
            self._failure = failure
            _log.critical("%s", failure)
            self._on_failure(failure)

    def _write_queued(self) -> None:
        pending: deque[NumberedStep] = deque()
        take = self._queue.get
        is_closing = False
        while not is_closing or pending:
            if not pending:
                item = take()
                if item is None:
                    break
                pending.append(item)
            for _ in range(self._queue.qsize()):
                item = take()
                if item is None:
                    is_closing = True
                else:
                    pending.append(item)
            self._write_burst(pending)
        self._write_burst(pending)  # of no steps: the proof that the burst before was durable

    def _write_burst(self, pending: deque[NumberedStep]) -> None:
        log_files = self._log_files
        burst = log_files.take(pending)
        if burst is None:
            return
        started = time.perf_counter()
        write_burst(log_files.files, burst)
        seconds = time.perf_counter() - started
        log_files.complete(burst, seconds)
        if burst.last_step:
            self._notify(burst.last_step)
        if self._on_sync is not None:
            self._on_sync(seconds, len(burst.data), burst.record_count)
