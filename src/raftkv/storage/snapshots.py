"""A snapshot directory as a stream of checked chunks, and back.

    Begin(file_count, total_bytes)  { Data(name, offset, data)…  FileEnd(name, size, crc32c) }…  End(manifest crc32c)

A chunk is its CRC32C (4 bytes) and a MessagePack array that begins with a tag and the chunk's number. Together:
- a changed chunk fails its own checksum;
- a lost, repeated or moved chunk has the wrong number;
- a file that is short, long or put together wrongly fails its size or checksum at `FileEnd`;
- a stream that ends early has no `End`, and a mixed one fails the checksum over all `FileEnd`s.

Nothing here grows with the state: the list of files is never in one chunk, each side holds one chunk at a time,
and a file is read once. Both classes block and are meant to be called in a thread, one call at a time; `close` and
`discard` may come from another thread when the transfer is given up, and wait for the call under way.

The receiver writes only plain names into one staging directory, and checks the announced size against the disk before
the first byte, so a hostile peer can neither write elsewhere nor fill the disk. Turned down: tar, which has links,
modes and paths to be refused, and no checksums of content.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from raftkv.errors import DiskFull, PeerProtocolError, RaftkvError, StorageError, require
from raftkv.storage import files
from raftkv.storage.disk import free_bytes
from raftkv.storage.snapshot_chunks import (
    CHUNK_OVERHEAD_BYTES,
    MAX_FILE_COUNT,
    NAME,
    Begin,
    Chunk,
    Data,
    End,
    FileEnd,
    decode_chunk,
    encode_chunk,
    extend_manifest,
)

_GIVEN_UP = "the snapshot was given up"


class SnapshotSource:
    """Reads the flat `directory` chunk by chunk; the files must not change meanwhile."""

    def __init__(self, directory: Path, chunk_bytes: int) -> None:
        """`chunk_bytes` bounds every chunk, its overhead included. Raises StorageError."""
        require(chunk_bytes > CHUNK_OVERHEAD_BYTES, "snapshot chunks of {} bytes", chunk_bytes)
        self._data_bytes = chunk_bytes - CHUNK_OVERHEAD_BYTES
        self._lock = threading.Lock()
        self._directory = directory
        try:
            self._sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        except OSError as error:
            raise _failed("read", directory, error) from error
        self.total_bytes = sum(self._sizes.values())
        self.sent_bytes = 0
        self._chunks = self._read()

    def next_chunk(self) -> bytes | None:
        """The next chunk, or None after the last. Raises StorageError."""
        with self._lock:
            try:
                chunk = next(self._chunks, None)
            except OSError as error:
                raise _failed("read", self._directory, error) from error
        return None if chunk is None else encode_chunk(chunk)

    def close(self) -> None:
        """Release the files; `next_chunk` returns None from then on. Idempotent."""
        with self._lock:
            self._chunks.close()

    def _read(self) -> Generator[Chunk]:
        yield Begin(0, len(self._sizes), self.total_bytes)
        number, manifest = 1, 0
        for name, size in self._sizes.items():
            offset, checksum = 0, 0
            with (self._directory / name).open("rb", buffering=0) as file:
                while data := file.read(self._data_bytes):
                    yield Data(number, name, offset, data)
                    number += 1
                    offset += len(data)
                    checksum = google_crc32c.extend(checksum, data)
                    self.sent_bytes += len(data)
            if offset != size:
                raise StorageError(f"{self._directory / name} changed from {size} to {offset} bytes while it was read")
            end = FileEnd(number, name, size, checksum)
            manifest = extend_manifest(manifest, end)
            yield end
            number += 1
        yield End(number, manifest)


class SnapshotSink:
    """Writes a stream into `directory`, which must not exist, under a temporary name until all is verified.

    Once a method has raised, only `discard` is of use. `reserve_bytes` of the disk are kept free.
    """

    def __init__(self, directory: Path, reserve_bytes: int = 0) -> None:
        self._directory = directory
        self._partial = directory.with_name(directory.name + files.TEMPORARY_SUFFIX)
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._next_number = 0
        self._begin = Begin(0, 0, 0)
        self._file: BinaryIO | None = None
        self._name = ""
        self._offset = 0
        self._checksum = 0
        self._manifest = 0
        self._names: set[str] = set()
        self._is_complete = False
        self._is_discarded = False
        self.received_bytes = 0
        try:
            files.remove_tree(self._partial)
            self._partial.mkdir(mode=0o700)
        except OSError as error:
            raise _failed("make", self._partial, error) from error

    def write(self, data: bytes) -> None:
        """Verify and store the next chunk.

        Raises PeerProtocolError for anything but the chunk that comes next, DiskFull, or StorageError.
        """
        chunk = decode_chunk(data)
        with self._lock:
            if self._is_discarded:
                raise StorageError(_GIVEN_UP)
            if chunk.number != self._next_number or self._is_complete:
                raise PeerProtocolError(f"snapshot chunk {chunk.number} came where {self._next_number} was due")
            if (chunk.number == 0) is not isinstance(chunk, Begin):
                raise PeerProtocolError("a snapshot begins in the wrong place")
            self._next_number += 1
            try:
                self._take(chunk)
            except OSError as error:
                raise _failed("write", self._partial, error) from error

    def _take(self, chunk: Chunk) -> None:
        match chunk:
            case Begin():
                self._check_room(chunk)
            case Data():
                self._append(chunk)
            case FileEnd():
                self._end_file(chunk)
            case End():
                self._check_complete(chunk)

    def _check_room(self, begin: Begin) -> None:
        if not (0 <= begin.file_count <= MAX_FILE_COUNT and begin.total_bytes >= 0):
            raise PeerProtocolError(f"a snapshot of {begin.file_count} files and {begin.total_bytes} bytes")
        free = free_bytes(self._partial)
        if begin.total_bytes + self._reserve_bytes > free:
            raise DiskFull(
                f"a snapshot of {begin.total_bytes} bytes does not fit: {free} bytes are free, "
                f"{self._reserve_bytes} are kept in reserve"
            )
        self._begin = begin

    def _append(self, chunk: Data) -> None:
        if self._file is None:
            self._open_file(chunk.name)
        if chunk.name != self._name or chunk.offset != self._offset or not chunk.data:
            raise PeerProtocolError(
                f"{chunk.name!r} at {chunk.offset} came where {self._name!r} at {self._offset} was due"
            )
        if self.received_bytes + len(chunk.data) > self._begin.total_bytes:
            raise PeerProtocolError(f"a snapshot has more than the {self._begin.total_bytes} bytes it announced")
        self._write(chunk.data)
        self._offset += len(chunk.data)
        self.received_bytes += len(chunk.data)
        self._checksum = google_crc32c.extend(self._checksum, chunk.data)

    def _open_file(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise PeerProtocolError(f"a snapshot with the file name {name!r}")
        if name in self._names:
            raise PeerProtocolError(f"a snapshot with two files named {name!r}")
        if len(self._names) == self._begin.file_count:
            raise PeerProtocolError(f"a snapshot has more than the {self._begin.file_count} files it announced")
        self._names.add(name)
        self._name, self._offset, self._checksum = name, 0, 0
        self._file = (self._partial / name).open("xb", buffering=0)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._file is not None:
            rest = rest[self._file.write(rest) :]

    def _end_file(self, end: FileEnd) -> None:
        if self._file is None:
            self._open_file(end.name)
        if (end.name, end.size, end.crc32c) != (self._name, self._offset, self._checksum):
            raise PeerProtocolError(f"the snapshot's file {end.name!r} arrived with the wrong size or checksum")
        file, self._file = self._file, None
        if file is not None:
            with file:
                files.sync_file(file)
        self._manifest = extend_manifest(self._manifest, end)

    def _check_complete(self, end: End) -> None:
        has_all = len(self._names) == self._begin.file_count and self.received_bytes == self._begin.total_bytes
        if self._file is not None or not has_all or end.manifest_crc32c != self._manifest:
            raise PeerProtocolError("a snapshot ended before it was complete")
        self._is_complete = True

    def finish(self) -> None:
        """Call after the last chunk: all of it is verified, and durable in `directory`, on return.

        Raises PeerProtocolError when the stream was cut short, or StorageError.
        """
        with self._lock:
            if self._is_discarded:
                raise StorageError(_GIVEN_UP)
            if not self._is_complete:
                raise PeerProtocolError("a snapshot was cut short")
            try:
                files.sync_directory(self._partial)
                self._partial.rename(self._directory)
                files.sync_directory(self._directory.parent)
            except OSError as error:
                raise _failed("sync", self._partial, error) from error

    def place(self, target: Path) -> None:
        """Move what `finish` left to `target`, on the same file system; the caller syncs the directory there."""
        with self._lock:
            require(self._is_complete and not self._is_discarded, "an unfinished snapshot was placed")
            try:
                self._directory.rename(target)
            except OSError as error:
                raise _failed("move", self._directory, error) from error

    def discard(self) -> None:
        """Remove whatever is still staged, finished or not. Idempotent; what was placed elsewhere stays."""
        with self._lock:
            self._is_discarded = True
            if self._file is not None:
                self._file.close()
                self._file = None
            try:
                files.remove_tree(self._partial)
                files.remove_tree(self._directory)
            except OSError as error:
                raise _failed("remove", self._directory, error) from error


def _failed(action: str, path: Path, error: OSError) -> RaftkvError:
    text = f"cannot {action} the snapshot in {path}: {error.strerror or error}"
    return DiskFull(text) if error.errno == errno.ENOSPC else StorageError(text)
