"""Keeps the next segment ready, and removes those that are no longer needed, out of the log's way.

Segments are removed oldest first, each removal durable before the next, so that a crash leaves no gap; when one
cannot be removed, those behind it wait.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from raftkv.errors import require
from raftkv.storage.disk import Executor, FileOps
from raftkv.storage.segment import Segment, enlarge_segment, make_segment, round_up

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_log = logging.getLogger(__name__)


class SegmentSupply:
    """Never blocks but in `close`: the work is done by `executor`. Used by whoever drives the log."""

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
        """Begin to make segment `sequence`, unless that was begun before. Never fails; what `request` gives does."""
        if self._next is None:
            self._next = self._executor.submit(
                make_segment, self._files, self._directory, sequence, self._segment_size_bytes
            )

    def request(self, sequence: int, needed_bytes: int) -> Future[Segment]:
        """Segment `sequence`, of at least `needed_bytes`: done already when the spare is ready and large enough.

        It ends with `OSError` when there is no segment to be had. Once it was received, call `taken`.
        """
        spare = self._next
        if spare is None or not _is_ready(spare, needed_bytes):
            spare = self._next = self._executor.submit(self._finish, spare, sequence, needed_bytes)
        return spare

    def taken(self, segment: Segment) -> None:
        """`segment`, which was requested, is in use now: begin to make the next one."""
        require(self._next is not None and self._next.done(), "segment {} was not requested", segment.sequence)
        self._next = None
        self.prepare(segment.sequence + 1)

    def retire(self, segments: list[Segment]) -> None:
        """Close and remove `segments`, ascending; nobody may read them any more."""
        if segments:
            self._executor.submit(self._remove, segments)

    def close(self) -> None:
        """Blocking: end all work, and close what was made and never used."""
        self._executor.shutdown()
        if self._next is not None and self._next.exception() is None:
            self._files.close(self._next.result().handle)

    def _finish(self, made: Future[Segment] | None, sequence: int, needed_bytes: int) -> Segment:
        """In the executor, so behind the task of `made`.

        There may be space again since making it failed, so that is tried once more; any other failure is final.
        """
        segment: Segment | None = None
        if made is not None:
            try:
                segment = made.result()
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise  # a failed write or sync is never tried again, see wal.py
                _log.warning("the next log segment could not be made ahead of its use, trying again: %s", error)
        if segment is None:
            size = max(self._segment_size_bytes, round_up(needed_bytes))
            return make_segment(self._files, self._directory, sequence, size)
        if segment.size_bytes < needed_bytes:
            try:
                enlarge_segment(self._files, segment, round_up(needed_bytes))
            except BaseException:
                self._files.close(segment.handle)
                raise
        return segment

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


def _is_ready(spare: Future[Segment], needed_bytes: int) -> bool:
    return spare.done() and spare.exception() is None and spare.result().size_bytes >= needed_bytes
