"""Blocking work that a cancellation cannot leave behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from raftkv.runtime.threads import run_in_thread


class Work:
    """Blocks until it is let go; notes that it has ended, and what was undone."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = False
        self.undone: list[str] = []
        self._error = error

    def __call__(self) -> str:
        self.started.set()
        assert self.may_end.wait(10)
        self.has_ended = True
        if self._error is not None:
            raise self._error
        return "result"


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()

    asyncio.run(main())


def test_it_gives_what_the_work_gives() -> None:
    async def story() -> None:
        assert await run_in_thread(lambda: 7) == 7
        with pytest.raises(OSError, match="full"):
            await run_in_thread(lambda: (_ for _ in ()).throw(OSError("full")))

    play(story)


def test_a_cancellation_waits_for_the_end_and_takes_the_result_back() -> None:
    async def story() -> None:
        work = Work()
        task = asyncio.create_task(run_in_thread(work, work.undone.append))
        await asyncio.to_thread(work.started.wait, 10)
        for _ in range(3):  # the impatient cancel more than once
            task.cancel()
            for _ in range(10):  # in which the cancellation arrives
                await asyncio.sleep(0)
            assert not task.done()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.has_ended
        assert work.undone == ["result"]

    play(story)


def test_a_cancellation_of_work_that_fails_has_nothing_to_take_back() -> None:
    async def story() -> None:
        work = Work(OSError("full"))
        task = asyncio.create_task(run_in_thread(work, work.undone.append))
        await asyncio.to_thread(work.started.wait, 10)
        task.cancel()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.undone == []

    play(story)


def test_without_a_cancellation_nothing_is_taken_back() -> None:
    async def story() -> None:
        work = Work()
        work.may_end.set()
        assert await run_in_thread(work, work.undone.append) == "result"
        assert work.undone == []

    play(story)
