"""One process at a time in a data directory.

flock, not the pid in the file, decides: the kernel releases it when the process ends, however it ends, so a stale file
never blocks a start. The pid is there to tell people who has it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from raftkv.errors import DataDirectoryError

LOCK_NAME = "LOCK"


class DirectoryLock:
    """Held from `acquire` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> DirectoryLock:
        """Raises DataDirectoryError with the holder's pid when another process has it; OSError otherwise."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryError(
                f"the data directory {path.parent} is in use by the process with pid {holder}: "
                "stop that process, or give this node another directory"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Idempotent. The file stays: removing it would let two processes lock two different files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
