"""Waiting for what another process does: ask again until it is so, or fail with the last answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e.curl import Answer, NoAnswer

T = TypeVar("T")
PAUSE_S = 0.01


def eventually(probe: Callable[[], T], what: str, timeout_s: float = 15.0) -> T:
    """The first true answer of `probe`. NoAnswer and AssertionError inside it count as not yet."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = probe()
        except (NoAnswer, AssertionError) as not_yet:
            last = not_yet
        else:
            if found:
                return found
            last = found
        time.sleep(PAUSE_S)
    raise AssertionError(f"{what}: not within {timeout_s:g} s; last: {last!r}")


def eventually_answers(request: Callable[[], Answer], status: int, what: str, timeout_s: float = 15.0) -> Answer:
    """Send `request` again until it is answered with `status`; that answer."""

    def ask() -> Answer:
        answer = request()
        assert answer.status == status, answer
        return answer

    return eventually(ask, what, timeout_s)
