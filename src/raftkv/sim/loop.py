"""One simulated process's event loop: what `asyncio.get_running_loop()` is for the code of one node.

All loops of a world share its time. Each belongs to one life of one process: when that dies, nothing of it is ever
called again; while it is paused (SIGSTOP) its callbacks wait, and time goes on.

Only what our code uses of `asyncio.AbstractEventLoop` is here; anything else raises `NotImplementedError` by itself.
Work for a thread is done at once: in virtual time it takes none.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from raftkv.sim.world import Handle, World


class NodeLoop(asyncio.AbstractEventLoop):
    """`failed(error)` takes what a callback raises; `after(loop)` is called after each callback that ran."""

    def __init__(
        self, world: World, failed: Callable[[BaseException], None], after: Callable[[], None] | None = None
    ) -> None:
        self._world = world
        self._failed = failed
        self._after = after
        self.is_dead = False
        self.is_paused = False
        self._parked: deque[Handle] = deque()
        self.readers: dict[int, Callable[[], object]] = {}

    # Life

    def die(self) -> None:
        self.is_dead = True
        self._parked.clear()
        self.readers.clear()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        parked, self._parked = self._parked, deque()
        for handle in parked:
            self._world.call_soon(self._run, handle)

    def enter(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Run `callback` now, as this process."""
        self._run(Handle(self._world.now_s, callback, arguments))

    def _run(self, handle: Handle) -> None:
        if self.is_dead or handle.is_cancelled:
            return
        if self.is_paused:
            self._parked.append(handle)
            return
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            handle.run()
        except Exception as error:  # noqa: BLE001 - whatever escapes into an event loop is a bug of the node
            self._failed(error)
        finally:
            asyncio._set_running_loop(outer)
        if self._after is not None and not self.is_dead:
            self._after()

    # asyncio.AbstractEventLoop

    def time(self) -> float:
        return self._world.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        del context  # one process's callbacks share one
        handle = Handle(self._world.now_s, callback, args)
        self._world.call_soon(self._run, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        del context
        handle = Handle(when, callback, args)
        self._world.call_at(when, self._run, handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        del context
        return self.call_at(self._world.now_s + delay, callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **_named: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        del executor
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - a future carries any error to whoever waits for it
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        self.readers[fd] = lambda: callback(*args)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.is_dead

    def is_closed(self) -> bool:
        return self.is_dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not self.is_dead:
            self._failed(error)
