"""The log without what drives it: recovery, what to write next, what a finished write means, reads, removal.

Whoever drives it (`wal.Wal` in the event loop, `write_burst` below, or a simulator on virtual time) repeats:

    burst = log.take(pending)                            encodes queued steps
    if it is None: log.start_segment(segment), once log.request_segment(pending) has given one; then take again
    write burst.data at burst.offset of burst.segment.handle, then sync it
    log.complete(burst, seconds)                         only now is anything of it durable

and stops for good at the first error of a write or sync. All of this is for one thread; only reads may come from
others. Nothing blocks but `open`, `close`, `write_burst` and reads.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from raftkv.errors import CorruptData, require
from raftkv.storage.disk import Executor, FileOps, read_fully
from raftkv.storage.log_index import Run, pack_position
from raftkv.storage.log_writer import Appended, Burst, Cut, LogWriter, NumberedStep, Reset, Truncated, WalStep
from raftkv.storage.record import ENTRY_FIXED_SIZE_BYTES, BadRecord, decode_entry
from raftkv.storage.recovery import RecoveredLog, recover, write_burst
from raftkv.storage.segment import Segment
from raftkv.storage.segment_supply import SegmentSupply
from raftkv.types import Entry, HardState, SnapshotMetadata

MIN_SEGMENT_SIZE_BYTES = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class WalSettings:
    segment_size_bytes: int = 64 << 20
    """Of new segments, at least 4096. Existing ones keep theirs; a step that does not fit gets a larger one."""
    first_burst_number: int | None = None
    """Only for runs that must repeat byte for byte; otherwise random, see `scan`."""


@dataclasses.dataclass(slots=True)
class WalStats:
    """Since the log was opened, but for `segment_count`. Written by who drives the log, read by anyone."""

    segment_count: int = 0
    sync_count: int = 0
    bytes_written: int = 0
    last_sync_seconds: float = 0.0
    longest_sync_seconds: float = 0.0
    cut_bytes: int = 0
    """Of a torn write, cut off when the log was opened."""


class LogFiles:
    """See the module."""

    def __init__(self, files: FileOps, directory: Path, recovered: RecoveredLog, supply: SegmentSupply) -> None:
        """Use `open`."""
        self.files = files
        self.directory = directory
        self.stats = WalStats(len(recovered.segments), cut_bytes=recovered.cut_bytes)
        self._index = recovered.index
        self._segments = {segment.sequence: segment for segment in recovered.segments}
        self._supply = supply
        self._writer = LogWriter(recovered.tail)
        # Held while the index changes and while a segment is read, so that no segment is closed under a reader.
        self._lock = threading.Lock()
        self._accepted_step = 0
        self._accepted_last_index = recovered.index.last_index
        self._accepted_cut = recovered.index.base
        supply.prepare(recovered.tail.segment.sequence + 1)
        supply.retire(self._drop_segments())  # a crash may have come between a durable base and the removal

    @classmethod
    def open(cls, files: FileOps, directory: Path, settings: WalSettings, executor: Executor) -> LogFiles:
        """`executor` makes and removes segments, and is the log's own from here on, whatever happens.

        Blocking. Raises `CorruptData`, `DataDirectoryError` (nothing on disk was changed) or `OSError`.
        """
        size = settings.segment_size_bytes
        require(size >= MIN_SEGMENT_SIZE_BYTES, "log segments of {} bytes", size)
        try:
            recovered = recover(files, directory, size, settings.first_burst_number)
        except BaseException:
            executor.shutdown()
            raise
        supply = SegmentSupply(files, directory, size, executor, recovered.spare)
        return cls(files, directory, recovered, supply)

    @property
    def hard_state(self) -> HardState:
        return self._index.hard_state

    @property
    def base(self) -> SnapshotMetadata:
        """Behind this the log begins; for a cut as soon as it was accepted, for a reset once it is durable."""
        durable, accepted = self._index.base, self._accepted_cut
        return durable if durable.last_index >= accepted.last_index else accepted

    @property
    def last_index(self) -> int:
        return self._index.last_index

    def term(self, index: int) -> int:
        """Of an entry or of the base; `index` is from `base.last_index` to `last_index`."""
        with self._lock:
            return self._index.term(index)

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries `first` to `last`, or fewer: as many as have `max_bytes` of data together, at least one.

        Raises `CorruptData` when the disk does not give back what was written.
        """
        if first > last:
            return []
        found: list[Entry] = []
        with self._lock:
            index = self._index
            held = index.first_index <= first and last <= index.last_index
            require(held, "entries {} to {} of {} to {}", first, last, index.first_index, index.last_index)
            for run in index.runs(first, last, max_bytes):
                self._read_run(run, found)
        return found

    def index_retaining(self, retained_bytes: int) -> int:
        """The lowest index from which on the log takes at most `retained_bytes` of its files."""
        with self._lock:
            tail = self._writer.tail
            room = retained_bytes
            for sequence in sorted(self._segments, reverse=True):
                is_tail = sequence == tail.segment.sequence
                used = tail.offset if is_tail else self._segments[sequence].size_bytes
                if used > room:
                    first = self._index.first_behind(pack_position(sequence, used - room))
                    return max(first, self.base.last_index + 1)
                room -= used
            return self.base.last_index + 1

    def configurations(self) -> list[Entry]:
        """All entries that hold a configuration, ascending."""
        first = self.base.last_index + 1
        return [self.entries(at, at, 0)[0] for at in list(self._index.configuration_indexes) if at >= first]

    def accept(self, step: WalStep) -> int:
        """Check that a step continues what was accepted before; answers its number, counted from 1."""
        last_index = self._accepted_last_index if step.reset is None else step.reset.last_index
        if entries := step.entries:
            first = entries[0].index
            base = self.base if step.reset is None else step.reset
            require(base.last_index < first <= last_index + 1, "entry {} is written behind {}", first, last_index)
            last_index = entries[-1].index
            require(last_index - first == len(entries) - 1, "entries {} to {} have a gap", first, last_index)
        self._accepted_last_index = last_index
        self._accepted_step += 1
        return self._accepted_step

    def accept_cut(self, base: SnapshotMetadata) -> bool:
        """Move `base`; False when it is there or further. A step with the cut must follow.

        The index keeps the entries until that step is durable: it tells which segments may be removed, and one that a
        crash could bring back into the log must not be.
        """
        if base.last_index <= self.base.last_index:
            return False
        require(base.last_index <= self.last_index, "cut up to {} of {}", base.last_index, self.last_index)
        self._accepted_cut = base
        return True

    def take(self, pending: deque[NumberedStep]) -> Burst | None:
        """The next burst; its steps are removed from `pending`. Of no steps: the proof that the one before is durable.

        None when the segment is full: the first of `pending` needs the next one, or there is no room for a proof
        (then the next segment's first burst will be it).
        """
        return self._writer.take(pending)

    def request_segment(self, pending: deque[NumberedStep]) -> Future[Segment]:
        """The segment for the first of `pending`; perhaps done already, otherwise in the executor's time."""
        writer = self._writer
        return self._supply.request(writer.tail.segment.sequence + 1, writer.needed_bytes(pending[0][1]))

    def start_segment(self, segment: Segment) -> None:
        """Go on in `segment`, which was requested. Everything written before must be durable."""
        with self._lock:
            self._segments[segment.sequence] = segment
            self._writer.start_segment(segment)
        self.stats.segment_count = len(self._segments)
        self._supply.taken(segment)

    def write_burst(self, pending: deque[NumberedStep]) -> Burst | None:
        """Blocking: take the next burst and make it durable. For tests, tools and what has no event loop."""
        burst = self.take(pending)
        if burst is None and pending:
            self.start_segment(self.request_segment(pending).result())
            burst = self.take(pending)
        if burst is not None:
            started_s = time.perf_counter()
            write_burst(self.files, burst)
            self.complete(burst, time.perf_counter() - started_s)
        return burst

    def complete(self, burst: Burst, seconds: float) -> None:
        """The burst is durable: let it be read, and remove segments that it made superfluous."""
        stats = self.stats
        stats.sync_count += 1
        stats.bytes_written += len(burst.data)
        stats.last_sync_seconds = seconds
        stats.longest_sync_seconds = max(stats.longest_sync_seconds, seconds)
        with self._lock:
            may_remove = self._change_index(burst)
            superfluous = self._drop_segments() if may_remove else []
        self._supply.retire(superfluous)

    def close(self) -> None:
        """Blocking: end the making and removing of segments, and close all files. No write may be under way."""
        self._supply.close()
        for segment in self._segments.values():
            self.files.close(segment.handle)
        self._segments.clear()

    def _change_index(self, burst: Burst) -> bool:
        index = self._index
        may_remove = False
        for change in burst.changes:
            match change:
                case Appended(entries, positions):
                    for entry, position in zip(entries, positions, strict=True):
                        length = ENTRY_FIXED_SIZE_BYTES + len(entry.data)
                        index.append(entry.index, entry.term, entry.kind, position, length)
                case HardState():
                    index.hard_state = change
                case Truncated(last_index):
                    index.truncate(last_index)
                case Reset(base):
                    index.reset(base)
                    may_remove = True
                case Cut(base):
                    index.cut(base)
                    may_remove = True
        return may_remove

    def _drop_segments(self) -> list[Segment]:
        """Take out the segments before the first entry's: the base that they are not needed for is durable."""
        oldest = self._index.oldest_sequence() or self._writer.tail.segment.sequence
        dropped = [self._segments.pop(sequence) for sequence in sorted(self._segments) if sequence < oldest]
        self.stats.segment_count = len(self._segments)
        return dropped

    def _read_run(self, run: Run, found: list[Entry]) -> None:
        segment = self._segments[run.sequence]
        data = read_fully(self.files, segment.handle, run.size_bytes, run.offset)
        for offset in run.entry_offsets:
            try:
                found.append(decode_entry(data, offset - run.offset, run.sequence, offset))
            except BadRecord as error:
                raise CorruptData(str(segment.path), offset, str(error)) from error
