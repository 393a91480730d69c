"""Crashing at the n-th file operation, without touching the code that is tested.

Python reports every operation on files to audit hooks (PEP 578) before it is done, so a hook that raises stops the
program exactly there, as `kill -9` would. Syncs are not reported and lose nothing when only the process dies; that they
are done, and in time, is what `recorded_syncs` is for.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir", "os.scandir"}


class Crash(BaseException):
    """Not an Exception, so nothing tidies up that a dead process would not."""


class _Plan:
    below = ""
    remaining = 0
    renames: list[str] | None = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.renames is not None and event == "os.rename":
            self.renames.append(f"rename {arguments[0]} {arguments[1]}")
        if self.remaining and event in _EVENTS and str(arguments[0]).startswith(self.below):
            self.remaining -= 1
            if not self.remaining:
                raise Crash(f"{event} {arguments[0]}")


_plan = _Plan()
_is_installed = False


def _install() -> None:
    global _is_installed  # noqa: PLW0603  a hook cannot be taken out again, so there is one
    if not _is_installed:
        sys.addaudithook(_plan)
        _is_installed = True


@contextlib.contextmanager
def recorded_syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is synced ("sync path") and renamed ("rename old new"), in order. Everything is really done."""
    events: list[str] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        real_fsync(descriptor)

    _install()
    _plan.renames = events
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        try:
            yield events
        finally:
            _plan.renames = None


@contextlib.contextmanager
def crash_at(step: int, below: Path) -> Iterator[None]:
    """Raise Crash instead of doing the `step`-th operation (from 1) on a path in `below`."""
    _install()
    _plan.below, _plan.remaining = str(below), step
    try:
        yield
    finally:
        _plan.remaining = 0
