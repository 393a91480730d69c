"""The log of a directory on this machine: opened for use, or made anew. Both block, so they are for a thread."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raftkv.errors import StorageError
from raftkv.storage.disk import Executor, FileOps, OsFiles
from raftkv.storage.log_files import LogFiles, WalSettings
from raftkv.storage.log_writer import NumberedStep, WalStep


def open_log(
    directory: Path,
    settings: WalSettings | None = None,
    files: FileOps | None = None,
    executor: Executor | None = None,
) -> LogFiles:
    """Recover the log in `directory`, or make an empty one. `executor` makes segments, by default a thread.

    Give it to a `Wal`, or close it. Raises `CorruptData`, `DataDirectoryError` (nothing on disk was changed) or
    another `StorageError`.
    """
    with _storage_errors(directory):
        executor = executor or ThreadPoolExecutor(1, "raftkv-segments")
        return LogFiles.open(files or OsFiles(), directory, settings or WalSettings(), executor)


def found_log(
    directory: Path,
    step: WalStep,
    settings: WalSettings | None = None,
    files: FileOps | None = None,
    executor: Executor | None = None,
) -> None:
    """Make a log that holds `step`; all of it is durable on return. Raises `StorageError`."""
    log = open_log(directory, settings, files, executor)
    try:
        pending: deque[NumberedStep] = deque([(log.accept(step), step)])
        with _storage_errors(directory):
            log.write_burst(pending)
            log.write_burst(pending)  # of no steps: the proof that the burst before was durable
    finally:
        log.close()


@contextlib.contextmanager
def _storage_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot open the log in {directory}: {error}") from error
