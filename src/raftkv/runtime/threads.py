"""Work that no cancellation can leave behind: mostly blocking work in a thread.

A cancelled `asyncio.to_thread` returns at once while its thread goes on: what that opens is then never closed, and
what it still uses is closed under it. Here the cancellation waits for the work to end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """What `work` returns or raises, once it has ended; `undo` takes back a result that a cancellation made useless."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await until_done(running)
        if undo is not None and not running.cancelled() and running.exception() is None:
            await until_done(asyncio.get_running_loop().run_in_executor(None, undo, running.result()))
        raise


async def until_done(running: asyncio.Future[T]) -> None:
    """For whoever was cancelled and has to wait all the same; the caller raises that cancellation afterwards."""
    while not running.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if not running.cancelled():
        running.exception()  # nobody else will look at it
