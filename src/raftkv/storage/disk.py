"""The seam between the log and the world: every system call that the log makes goes through `FileOps`.

The log's code above this seam knows no `os` call, so a simulator can run that very code on a disk of its own that
loses unsynced bytes, tears writes between sectors, fills up or fails, on virtual time. `OsFiles` is the real one.

Turned down: injecting faults with a FUSE file system or by patching `os`; neither runs in one process on virtual
time, and a patched module is shared by all nodes of a simulated cluster.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from raftkv.storage.files import sync_directory
from raftkv.storage.kernel_sync import KernelSync

_ZEROS_SIZE_BYTES = 1 << 20
_ZEROS = bytes(_ZEROS_SIZE_BYTES)
_SYNC_EVERY_BYTES = 4 << 20
_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class BackgroundSync(Protocol):
    """Syncs beside the event loop, one at a time; see `kernel_sync.KernelSync`."""

    def fileno(self) -> int:
        """Readable once the sync that was submitted has ended."""
        ...

    def submit(self, handle: int) -> None:
        """Begin to sync; nothing may be under way."""

    def finish(self) -> int:
        """The result of the sync that has ended: 0 when all is durable, else an errno."""
        ...

    def close(self) -> None: ...


class FileOps(Protocol):
    """All of the file system that the log uses. Every method may raise `OSError`; none interprets content."""

    def make_directory(self, directory: Path) -> None:
        """`directory` and its parents exist, durably, on return."""

    def names(self, directory: Path) -> list[str]:
        """The names in `directory`, in any order."""
        ...

    def open(self, path: Path, *, create: bool = False, read_only: bool = False) -> int:
        """A handle. With `create` an existing file is emptied."""
        ...

    def size(self, handle: int) -> int: ...

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer at any time, none only at the end of the file."""
        ...

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        """How many bytes were taken, perhaps fewer than all. Not durable before `sync`."""
        ...

    def allocate(self, handle: int, size: int) -> None:
        """Make the file `size` bytes long with space for all of it, or raise ENOSPC."""

    def sync(self, handle: int) -> None:
        """On return everything written through `handle` is durable. After an error nothing about it is known."""

    def open_background_sync(self) -> BackgroundSync | None:
        """What syncs handles of this file system beside the event loop; None: `sync` has to be called in a thread."""
        ...

    def close(self, handle: int) -> None: ...

    def rename(self, old: Path, new: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def sync_directory(self, directory: Path) -> None:
        """Names made, renamed or removed in `directory` are durable on return."""


class OsFiles:
    """`FileOps` on the operating system. Stateless; any thread may use it."""

    __slots__ = ()

    def make_directory(self, directory: Path) -> None:
        if not directory.exists():
            self.make_directory(directory.parent)
            directory.mkdir()
            sync_directory(directory.parent)

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in directory.iterdir()]

    def open(self, path: Path, *, create: bool = False, read_only: bool = False) -> int:
        mode = os.O_RDONLY if read_only else os.O_RDWR
        if create:
            mode |= os.O_CREAT | os.O_TRUNC
        return os.open(path, mode | os.O_CLOEXEC, 0o600)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def read(self, handle: int, size: int, offset: int) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def allocate(self, handle: int, size: int) -> None:
        os.posix_fallocate(handle, 0, size)

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def open_background_sync(self) -> BackgroundSync | None:
        try:
            return KernelSync.open()
        except OSError as error:
            _log.info("the kernel does not sync in the background, the log uses a thread: %s", error)
            return None

    def close(self, handle: int) -> None:
        os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, directory: Path) -> None:
        sync_directory(directory)


class Executor(Protocol):
    """Where slow file work (making and removing segments) is done; `concurrent.futures.Executor` is one."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Tasks are done one at a time, in order."""
        ...

    def shutdown(self) -> None:
        """Wait for all that was submitted."""


class InlineExecutor:
    """Does the work at once in the caller's thread: for tests and for a simulator without threads."""

    __slots__ = ()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 -- a future carries any error to whoever asks for the result
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        """There is nothing to wait for."""


def write_fully(files: FileOps, handle: int, data: bytes, offset: int) -> None:
    """Write all of `data`, however often the system takes only a part (signals, quotas, large buffers)."""
    written = files.write(handle, data, offset)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(data):
        taken = files.write(handle, view[written:], offset + written)
        if taken <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        written += taken


def read_fully(files: FileOps, handle: int, size: int, offset: int) -> bytes:
    """`size` bytes, or fewer only when the file ends before."""
    data = files.read(handle, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    have = len(data)
    while have < size:
        data = files.read(handle, size - have, offset + have)
        if not data:
            break
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def write_zeros(files: FileOps, handle: int, start: int, stop: int) -> None:
    """Fill `[start, stop)` with zeros and sync.

    Synced in steps: one sync of a whole new segment would hold up the log's own syncs on the same disk.
    """
    unsynced_bytes = 0
    while start < stop:
        size = min(stop - start, _ZEROS_SIZE_BYTES)
        write_fully(files, handle, _ZEROS[:size] if size < _ZEROS_SIZE_BYTES else _ZEROS, start)
        start += size
        unsynced_bytes += size
        if unsynced_bytes >= _SYNC_EVERY_BYTES:
            files.sync(handle)
            unsynced_bytes = 0
    files.sync(handle)


def free_bytes(path: Path) -> int:
    """Space on the file system of `path` that this process may use."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
