"""Disks that fail, and work that stands still, when told to, under a real node."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

from raftkv.runtime import Node
from raftkv.storage import OsFiles, Wal
from raftkv.storage.kernel_sync import KernelSync

_TEXT = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}


class _FailingSync(KernelSync):
    """The kernel's background sync, which fails as `FailingFiles.sync` does."""

    check: Callable[[str], None]

    def submit(self, handle: int) -> None:
        if hasattr(self, "check"):  # not yet in the trial that `open` makes
            self.check("sync")
        super().submit(handle)


class FailingFiles(OsFiles):
    """The real file system until `fail`; then the named operation raises, once or for ever, in whatever thread."""

    __slots__ = ("_failing", "hit")

    def __init__(self) -> None:
        self._failing: dict[str, int] = {}
        self.hit = threading.Event()

    def fail(self, operation: str, number: int = errno.ENOSPC) -> None:
        """From now on `operation` ("write", "sync") raises the error with this number."""
        self._failing[operation] = number

    def heal(self) -> None:
        self._failing.clear()

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        self._check("write")
        return super().write(handle, data, offset)

    def sync(self, handle: int) -> None:
        self._check("sync")
        super().sync(handle)

    def open_background_sync(self) -> KernelSync | None:
        try:
            sync = _FailingSync.open()
        except OSError:
            return None  # then `sync` above is what is called
        sync.check = self._check
        return sync

    def _check(self, operation: str) -> None:
        number = self._failing.get(operation)
        if number is not None:
            self.hit.set()
            raise OSError(number, _TEXT[number])


def fail_while_closing(log: Wal, files: FailingFiles) -> None:
    """The disk of `log` fails when it is closed next, and is well again right behind."""
    really = log.aclose

    async def failing() -> None:
        log.aclose = really  # type: ignore[method-assign]
        files.fail("sync", errno.EIO)
        await really()
        files.heal()

    log.aclose = failing  # type: ignore[method-assign]


def hold(node: Node, name: str) -> tuple[threading.Event, threading.Event]:
    """Stop the data directory's method `name` at its beginning; (reached, may go on)."""
    reached, may_go_on = threading.Event(), threading.Event()
    really = getattr(node.directory, name)

    def held(*arguments: Any, **named: Any) -> Any:
        reached.set()
        assert may_go_on.wait(10)
        return really(*arguments, **named)

    setattr(node.directory, name, held)
    return reached, may_go_on
