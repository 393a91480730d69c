"""The kernel's own writing back, made to happen all the time, anywhere and in any order.

Between two syncs the kernel may write any dirty page at any moment; in tests that last a second it never does, and
a cut would find either all of a write or nothing. This thread asks it to (sync_file_range), for random parts of
random files, without waiting and without a commit of the journal: nothing becomes durable that a node could rely on.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_WRITE = 2
"""SYNC_FILE_RANGE_WRITE: begin to write what is dirty, and do not wait."""
_PAGE_SIZE_BYTES = 4096
_PAUSE_MAX_S = 0.01


class Writeback:
    """At work on all files in `directory` between enter and exit; it has none of them open afterwards."""

    def __init__(self, directory: Path, dice: random.Random) -> None:
        self._directory = directory
        self._dice = random.Random(dice.random())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._dice.random() * _PAUSE_MAX_S):
            with suppress(OSError):  # files come and go, and then the power fails
                files = [Path(parent, name) for parent, _, names in os.walk(self._directory) for name in names]
                for path in self._dice.choices(files, k=3) if files else ():
                    self._write_some(path)

    def _write_some(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            page_count = os.fstat(descriptor).st_size // _PAGE_SIZE_BYTES + 1
            start = self._dice.randrange(page_count) * _PAGE_SIZE_BYTES
            size = self._dice.randint(1, 8) * _PAGE_SIZE_BYTES
            self._sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(size), _WRITE)
        finally:
            os.close(descriptor)
