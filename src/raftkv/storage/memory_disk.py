"""A disk in memory that behaves as badly as a real one may: `FileOps` with power cuts, errors and a capacity.

What is not synced may be lost in part: after `power_on` each sector written since the file's last sync holds either
its new or its old bytes, chosen one by one. Names made, renamed or removed since the last sync of a directory may be
lost too, each on its own. After a failed sync what was written stays readable, and is lost for good unless it is
written again: a later sync succeeds without it, as on Linux.

One thread. A sector is written as a whole or not at all (what SQLite calls powersafe overwrite).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

from raftkv.storage.disk import BackgroundSync

SECTOR_SIZE_BYTES = 512


class PowerCut(Exception):
    """The disk is off; the operation may or may not have happened."""


class _File:
    __slots__ = ("content", "durable", "unsynced")

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: set[int] = set()
        """Numbers of the sectors written since the last sync."""

    def write(self, data: bytes | memoryview, offset: int) -> None:
        stop = offset + len(data)
        if stop > len(self.content):
            self.unsynced.update(_sectors(len(self.content), stop))
            self.content.extend(bytes(stop - len(self.content)))
        self.content[offset:stop] = data
        self.unsynced.update(_sectors(offset, stop))

    def sync(self) -> None:
        self._keep(lambda: True)
        self.unsynced.clear()

    def crash(self, keeps: Callable[[], bool]) -> None:
        self._keep(keeps)
        self.content[:] = self.durable
        self.unsynced.clear()

    def _keep(self, keeps: Callable[[], bool]) -> None:
        for sector in sorted(self.unsynced):
            if keeps():
                start = sector * SECTOR_SIZE_BYTES
                new = self.content[start : start + SECTOR_SIZE_BYTES]
                if start > len(self.durable):
                    self.durable.extend(bytes(start - len(self.durable)))
                self.durable[start : start + len(new)] = new


def _sectors(start: int, stop: int) -> range:
    return range(start // SECTOR_SIZE_BYTES, -(-stop // SECTOR_SIZE_BYTES))


class MemoryDisk:
    """`FileOps`; the attributes below are its faults and may be changed at any time."""

    def __init__(self, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.max_write_bytes = 1 << 40
        """More is taken only in part."""
        self.operations_left: int | None = None
        """The power goes off within the operation that makes this 0."""
        self.errors: dict[str, list[OSError | None]] = {}
        """For a method's name, the outcomes of its next calls; None lets one succeed."""
        self.operation_count = 0
        """Of operations that change something."""
        self._files: dict[Path, _File] = {}
        self._durable_files: dict[Path, _File] = {}
        self._name_history: list[dict[Path, _File]] = []
        self._handles: dict[int, _File] = {}
        self._read_only: set[int] = set()
        self._next_handle = 3
        self._is_off = False

    def power_on(self, choose: random.Random | None = None) -> None:
        """Begin anew with what survived: of the unsynced nothing, or what `choose` decides. Handles are void."""
        histories = [self._durable_files, *self._name_history, self._files]
        survived: dict[Path, _File] = {}
        for path in sorted({path for names in histories for path in names}):
            names = choose.choice(histories) if choose is not None else histories[0]
            if path in names:
                survived[path] = names[path]
        files = {id(file): file for names in histories for file in names.values()}.values()
        # Whole runs of sectors are kept or lost about as often as a mixture of both.
        share = choose.choice((0.0, 0.2, 0.5, 0.8, 1.0)) if choose is not None else 0.0
        for file in files:
            file.crash(lambda: choose is not None and choose.random() < share)
        self._files = dict(survived)
        self._durable_files = dict(survived)
        self._name_history.clear()
        self.restart_process()

    def restart_process(self) -> None:
        """Only the handles are gone, and all planned faults: what was written is still in the page cache."""
        self._handles.clear()
        self._read_only.clear()
        self._is_off = False
        self.operations_left = None
        self.errors.clear()

    def image(self) -> dict[Path, bytes]:
        """Every file as a reader sees it now."""
        return {path: bytes(file.content) for path, file in self._files.items()}

    def put(self, path: Path, content: bytes) -> None:
        """Make `path` hold `content`, durably: how tests damage files."""
        self._files[path] = self._durable_files[path] = _File(content)

    def delete(self, path: Path) -> None:
        """Make `path` disappear, durably."""
        del self._files[path], self._durable_files[path]

    @classmethod
    def holding(cls, image: dict[Path, bytes]) -> MemoryDisk:
        """A disk that durably holds the files of `image`."""
        disk = cls()
        for path, content in image.items():
            disk.put(path, content)
        return disk

    # ---- FileOps

    def make_directory(self, directory: Path) -> None:
        """A directory is there as soon as a file is."""

    def names(self, directory: Path) -> list[str]:
        self._look()
        return [path.name for path in self._files if path.parent == directory]

    def open(self, path: Path, *, create: bool = False, read_only: bool = False) -> int:
        if not create:
            self._look()
            handle = self._handle(self._find(path))
            if read_only:
                self._read_only.add(handle)
            return handle
        self._begin("open")
        self._note_names()
        file = self._files[path] = _File()
        self._end()
        return self._handle(file)

    def size(self, handle: int) -> int:
        self._look()
        return len(self._handles[handle].content)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        self._look()
        self._fail("read")
        return bytes(self._handles[handle].content[offset : offset + size])

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        self._begin("write")
        if handle in self._read_only:
            raise OSError(errno.EBADF, "opened for reading only")
        file = self._handles[handle]
        taken = min(len(data), self.max_write_bytes)
        self._require_space(offset + taken - len(file.content))
        file.write(data[:taken], offset)
        self._end()
        return taken

    def allocate(self, handle: int, size: int) -> None:
        self._begin("allocate")
        file = self._handles[handle]
        grown = size - len(file.content)
        self._require_space(grown)
        if grown > 0:
            file.write(bytes(grown), len(file.content))
        self._end()

    def sync(self, handle: int) -> None:
        try:
            self._begin("sync")
        except OSError:
            self._handles[handle].unsynced.clear()  # marked clean, though they were not written
            raise
        if self.operations_left != 0:  # otherwise the power goes off before it is done
            self._handles[handle].sync()
        self._end()

    def open_background_sync(self) -> BackgroundSync | None:
        """A disk in memory has no kernel."""
        return None

    def close(self, handle: int) -> None:
        self._look()
        del self._handles[handle]

    def rename(self, old: Path, new: Path) -> None:
        self._begin("rename")
        file = self._find(old)
        self._note_names()
        del self._files[old]
        self._files[new] = file
        self._end()

    def remove(self, path: Path) -> None:
        self._begin("remove")
        self._find(path)
        self._note_names()
        del self._files[path]
        self._end()

    def sync_directory(self, directory: Path) -> None:
        del directory  # there is no use for more than one yet
        self._begin("sync_directory")
        if self.operations_left != 0:
            self._durable_files = dict(self._files)
            self._name_history.clear()
        self._end()

    # ---- faults

    def _find(self, path: Path) -> _File:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return self._files[path]

    def _handle(self, file: _File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = file
        return self._next_handle

    def _note_names(self) -> None:
        """Before a change of names: note that the names as they are now may be what survives."""
        self._name_history.append(dict(self._files))

    def _look(self) -> None:
        if self._is_off:
            raise PowerCut

    def _begin(self, name: str) -> None:
        self._look()
        self._fail(name)
        self.operation_count += 1
        if self.operations_left is not None:
            self.operations_left -= 1

    def _end(self) -> None:
        if self.operations_left == 0:
            self._is_off = True
            raise PowerCut

    def _fail(self, name: str) -> None:
        outcomes = self.errors.get(name)
        if outcomes and (error := outcomes.pop(0)) is not None:
            raise error

    def _require_space(self, more_bytes: int) -> None:
        used = sum(len(file.content) for file in self._files.values())
        if more_bytes > 0 and used + more_bytes > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space left on device")
