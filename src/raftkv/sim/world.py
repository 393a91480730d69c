"""Virtual time: one heap of callbacks for everything that happens in a simulated cluster.

Time moves only when nothing is left to do at the present moment, from one callback to the next, so an hour without
events takes no time. Callbacks of one moment run in the order in which they were asked for; nothing here depends on the
real clock, on hash order or on memory addresses, so the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any


class SimulationStuck(Exception):
    """Callbacks went on for ever without time moving: a loop in the code under test."""


CALLBACKS_AT_ONCE_MAX_COUNT = 200_000


class Handle:
    """One callback to come; obeys `asyncio.Handle` and `asyncio.TimerHandle` as far as our code uses them."""

    __slots__ = ("_arguments", "_callback", "_when_s", "is_cancelled")

    def __init__(self, when_s: float, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._when_s = when_s
        self._callback = callback
        self._arguments = arguments
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self._arguments = ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when_s

    def run(self) -> None:
        if not self.is_cancelled:
            self._callback(*self._arguments)


class World:
    """`now_s` counts from 0. `random(name)` is a source of its own for each name: they do not disturb each other."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_s = 0.0
        self.callback_count = 0
        self._timers: list[tuple[float, int, Handle]] = []
        self._ready: deque[Handle] = deque()
        self._order = 0

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(self.now_s, callback, arguments)
        self._ready.append(handle)
        return handle

    def call_at(self, when_s: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(when_s, callback, arguments)
        self._order += 1
        heapq.heappush(self._timers, (when_s, self._order, handle))
        return handle

    def call_later(self, delay_s: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_at(self.now_s + delay_s, callback, *arguments)

    def run(self, until_s: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `until_s`, or until `is_done`, which is asked whenever time moves: true then."""
        timers, ready = self._timers, self._ready
        while True:
            count = 0
            while ready:
                ready.popleft().run()
                count += 1
                if count > CALLBACKS_AT_ONCE_MAX_COUNT:
                    raise SimulationStuck(f"time stands still at {self.now_s:.6f} s")
            self.callback_count += count
            if is_done is not None and is_done():
                return True
            if not timers or timers[0][0] > until_s:
                self.now_s = max(self.now_s, until_s)
                return False
            when_s, _, handle = heapq.heappop(timers)
            if handle.is_cancelled:
                continue
            self.now_s = max(self.now_s, when_s)
            ready.append(handle)
            while timers and timers[0][0] <= self.now_s:
                ready.append(heapq.heappop(timers)[2])
