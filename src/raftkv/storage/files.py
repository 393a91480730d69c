"""Files that are whole or absent: the few disk idioms that the rest of the room builds on."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from raftkv.errors import DataDirectoryError

TEMPORARY_SUFFIX = ".new"


def replace_file(path: Path, data: bytes) -> None:
    """`path` holds `data`, durably, or what it held before: temporary name, sync, rename, sync of the directory."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with temporary.open("wb") as file:
        file.write(data)
        sync_file(file)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_file(file: IO[bytes]) -> None:
    """Make what was written to `file` durable."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make names made, renamed or removed in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make every file and every directory in `path`, and itself, durable."""
    for parent, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(parent))


def remove_tree(path: Path) -> None:
    """Remove `path` and all in it; nothing happens when it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextlib.contextmanager
def explain(what: str) -> Iterator[None]:
    """Turn an OSError into a DataDirectoryError that begins with `what` and says what the system said."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        hint = ": check owner and permissions" if isinstance(error, PermissionError) else ""
        raise DataDirectoryError(f"{what}: {error.strerror or error}{where}{hint}") from error
