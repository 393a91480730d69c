"""Crashing at the n-th file operation, without touching the code that is tested.

Python reports every operation on files to audit hooks (PEP 578) before it is done, so a hook that raises stops the
program exactly there, as `kill -9` would. Writes and syncs are not reported; what they lose is another test's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir", "os.scandir"}


class Crash(BaseException):
    """Not an Exception, so nothing tidies up that a dead process would not."""


class _Plan:
    below = ""
    remaining = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.remaining and event in _EVENTS and str(arguments[0]).startswith(self.below):
            self.remaining -= 1
            if not self.remaining:
                raise Crash(f"{event} {arguments[0]}")


_plan = _Plan()
_is_installed = False


@contextlib.contextmanager
def crash_at(step: int, below: Path) -> Iterator[None]:
    """Raise Crash instead of doing the `step`-th operation (from 1) on a path in `below`."""
    global _is_installed  # noqa: PLW0603  a hook cannot be taken out again, so there is one
    if not _is_installed:
        sys.addaudithook(_plan)
        _is_installed = True
    _plan.below, _plan.remaining = str(below), step
    try:
        yield
    finally:
        _plan.remaining = 0
