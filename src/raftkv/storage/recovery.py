"""Opens the log that a stopped process left: verifies it, cuts a torn last burst, or refuses.

Two phases. `LogReader` only reads; whatever it finds wrong raises, and then nothing on disk was changed. The second
phase repairs what a crash legally leaves, in an order in which another crash at any point is again a legal leftover:

1. The bytes of a torn last burst are zeroed and synced, so that no later write can make part of them valid.
2. Temporary files and surplus empty segments are removed.
3. The last burst is written again over itself and synced. It may be only in the page cache: written but not synced
   when the process was killed, or marked clean by a kernel whose sync had failed (the process that saw the
   failure stopped, see `wal`). What is acted on must be on disk.
4. An empty burst is written behind it and synced: from now on the burst before is known to have been durable.
   Not together with 3: bytes behind a burst that is not durable would make a legal crash look like damage.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections import deque
from pathlib import Path

from raftkv.storage.disk import FileOps, write_fully, write_zeros
from raftkv.storage.log_index import LogIndex
from raftkv.storage.log_reader import LogReader, list_segments
from raftkv.storage.log_writer import Burst, LogWriter, Tail
from raftkv.storage.segment import FIRST_SEQUENCE, Segment, make_segment, segment_path


@dataclasses.dataclass(slots=True)
class RecoveredLog:
    """An open log. `segments` are in use, ascending; `spare` is the next one, full of zeros."""

    segments: list[Segment]
    spare: Segment | None
    index: LogIndex
    tail: Tail
    cut_bytes: int
    """How many bytes of a torn burst were cut off; 0 after an orderly stop."""


def recover(files: FileOps, directory: Path, segment_size_bytes: int, first_burst_number: int | None) -> RecoveredLog:
    """Open or make the log in `directory`.

    Raises `CorruptData` or `DataDirectoryError` with everything on disk as it was, or `OSError`.
    """
    files.make_directory(directory)
    sequences, temporaries = list_segments(files, directory)
    opened: list[Segment] = []
    try:
        for sequence in sequences:
            path = segment_path(directory, sequence)
            handle = files.open(path)
            opened.append(Segment(sequence, path, handle, files.size(handle)))
        reader = LogReader(files, opened)
        reader.read()
        if reader.torn is not None:
            segment, start, stop = reader.torn
            write_zeros(files, segment.handle, start, stop)
        empty = _remove_leftovers(files, directory, opened, len(reader.used), segment_size_bytes, temporaries)
        if not reader.used:
            first = empty or make_segment(files, directory, FIRST_SEQUENCE, segment_size_bytes)
            opened[:] = reader.used = [first]
            empty = None
        number = reader.next_burst_number
        if number is None:
            number = secrets.randbits(62) if first_burst_number is None else first_burst_number
        recovered = _assemble(reader, empty, number)
        _prove(files, recovered.tail, reader.last_burst)
    except BaseException:
        for segment in opened:
            files.close(segment.handle)
        raise
    return recovered


def _remove_leftovers(
    files: FileOps,
    directory: Path,
    opened: list[Segment],
    used_count: int,
    segment_size_bytes: int,
    temporaries: list[Path],
) -> Segment | None:
    """Remove what is not part of the log, newest first so that no gap appears; the empty segment to use next stays."""
    removed = list(temporaries)
    kept = None
    for segment in reversed(opened[used_count:]):
        if segment.sequence == opened[used_count].sequence and segment.size_bytes == segment_size_bytes:
            kept = segment
            break
        files.close(segment.handle)
        opened.remove(segment)
        removed.append(segment.path)
    for path in removed:
        files.remove(path)
        files.sync_directory(directory)
    return kept


def _assemble(reader: LogReader, spare: Segment | None, next_burst_number: int) -> RecoveredLog:
    index = reader.index
    tail = Tail(
        reader.used[-1],
        reader.stop_offset,
        next_burst_number,
        index.base,
        index.hard_state,
        index.last_index,
        reader.previous_stop_offset,
    )
    cut_bytes = reader.torn[2] - reader.torn[1] if reader.torn is not None else 0
    return RecoveredLog(reader.used, spare, index, tail, cut_bytes)


def _prove(files: FileOps, tail: Tail, last_burst: tuple[int, bytes]) -> None:
    """Steps 3 and 4 of the module."""
    handle = tail.segment.handle
    offset, data = last_burst
    if data:
        write_fully(files, handle, data, offset)
        files.sync(handle)
    burst = LogWriter(tail).take(deque())
    if burst is not None:  # otherwise the segment is full, and the next one's first burst will be the proof
        write_burst(files, burst)


def write_burst(files: FileOps, burst: Burst) -> None:
    """The burst is durable on return. After an `OSError` the log must never be written again."""
    write_fully(files, burst.segment.handle, burst.data, burst.offset)
    files.sync(burst.segment.handle)
