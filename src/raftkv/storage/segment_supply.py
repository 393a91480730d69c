"""Keeps the next segment ready, and removes those that are no longer needed, out of the writer's way.

Segments are removed oldest first, each removal durable before the next, so that a crash leaves no gap; when one
cannot be removed, those behind it wait.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from raftkv.storage.disk import Executor, FileOps
from raftkv.storage.segment import Segment, enlarge_segment, make_segment, round_up

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_log = logging.getLogger(__name__)


class SegmentSupply:
    """Used by the one thread that writes the log; the work is done by `executor`, one task at a time."""

    def __init__(
        self, files: FileOps, directory: Path, segment_size_bytes: int, executor: Executor, spare: Segment | None
    ) -> None:
        self._files = files
        self._directory = directory
        self._segment_size_bytes = segment_size_bytes
        self._executor = executor
        self._next: Future[Segment] | None = None
        self._retired: deque[Segment] = deque()
        if spare is not None:
            self._next = Future()
            self._next.set_result(spare)

    def prepare(self, sequence: int) -> None:
        """Begin to make segment `sequence`, unless that was begun before. Never fails; `take` does."""
        if self._next is None:
            self._next = self._executor.submit(
                make_segment, self._files, self._directory, sequence, self._segment_size_bytes
            )

    def take(self, sequence: int, needed_bytes: int) -> Segment:
        """Segment `sequence`, of at least `needed_bytes`, waiting for it if it must. Raises `OSError`.

        There may be space again since making it failed, so that is tried once more; any other failure is final.
        """
        future, self._next = self._next, None
        segment: Segment | None = None
        if future is not None:
            try:
                segment = future.result()
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise  # a failed write or sync is never tried again, see wal.py
                _log.warning("the next log segment could not be made ahead of its use, trying again: %s", error)
        if segment is None:
            size = max(self._segment_size_bytes, round_up(needed_bytes))
            segment = make_segment(self._files, self._directory, sequence, size)
        if segment.size_bytes < needed_bytes:
            enlarge_segment(self._files, segment, round_up(needed_bytes))
        self.prepare(sequence + 1)
        return segment

    def retire(self, segments: list[Segment]) -> None:
        """Close and remove `segments`, ascending; nobody may read them any more."""
        if segments:
            self._executor.submit(self._remove, segments)

    def close(self) -> None:
        """After the executor has stopped: close what was made and never used."""
        if self._next is not None and self._next.done() and self._next.exception() is None:
            self._files.close(self._next.result().handle)

    def _remove(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._files.close(segment.handle)
        self._retired += segments
        try:
            while self._retired:
                self._files.remove(self._retired[0].path)
                self._files.sync_directory(self._directory)
                self._retired.popleft()
        except OSError as error:
            _log.warning("an old log segment cannot be removed now, will try again: %s", error)
