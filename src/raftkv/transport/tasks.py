"""Background tasks that are never lost: neither their references, nor their failures, nor their end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def report_failure(task: asyncio.Task[Any]) -> None:
    """A done-callback: hand an unexpected exception to the loop's handler now, not when the task is collected."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": f"task {task.get_name()} failed", "exception": error})


class TaskSet:
    """Tasks that run until they end or until `stop`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(report_failure)
        return task

    async def stop(self) -> None:
        """Cancel what is still running and wait for it. Not for use from within one of the tasks."""
        for task in self._tasks:
            task.cancel()
        await self.join()

    async def join(self) -> None:
        """Wait for all of them to end by themselves."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
