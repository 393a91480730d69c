"""A node's disk: `storage.memory_disk` with time, so that a sync takes a while, stalls or fails.

The log is synced as on Linux: `submit` begins, the loop's reader is called when it has ended. A process that is killed
loses its handles; a power cut loses what was not synced, sector by sector (see `MemoryDisk`).
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable

from raftkv.sim.loop import NodeLoop
from raftkv.sim.world import World
from raftkv.storage import MemoryDisk, PowerCut


class SimDisk(MemoryDisk):
    """The attributes are faults, and may be changed at any time."""

    def __init__(self, world: World, source: random.Random) -> None:
        super().__init__()
        self._world = world
        self._random = source
        self._descriptors = itertools.count(1000)
        self.sync_median_s = 0.001
        self.stalled_until_s = 0.0
        self.failing_sync_count = 0
        """So many of the next syncs end with EIO."""
        self.loop: NodeLoop
        """Of the process that has the disk open."""

    def sync_duration_s(self) -> float:
        duration_s = self.sync_median_s * self._random.lognormvariate(0.0, 0.5)
        return max(0.0, self.stalled_until_s - self._world.now_s) + duration_s

    def open_background_sync(self) -> SimSync:
        return SimSync(self, self.loop, next(self._descriptors), self._world)


class SimSync:
    """Obeys `storage.kernel_sync.KernelSync`."""

    def __init__(self, disk: SimDisk, loop: NodeLoop, descriptor: int, world: World) -> None:
        self._disk = disk
        self._loop = loop
        self._descriptor = descriptor
        self._world = world
        self._result = 0

    def fileno(self) -> int:
        return self._descriptor

    def submit(self, handle: int) -> None:
        self._world.call_later(self._disk.sync_duration_s(), self._end, handle)

    def _end(self, handle: int) -> None:
        """The kernel's part: it comes to its end whether the process is paused or not."""
        if self._loop.is_dead:
            return
        disk = self._disk
        self._result = 0
        if disk.failing_sync_count:
            disk.failing_sync_count -= 1
            disk.errors["sync"] = [OSError(errno.EIO, "the disk has failed")]
        try:
            disk.sync(handle)
        except OSError as error:
            self._result = error.errno or errno.EIO
        except PowerCut as cut:
            self._loop.enter(_raiser(cut))
            return
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        reader = self._loop.readers.get(self._descriptor)
        if reader is not None:
            reader()

    def finish(self) -> int:
        return self._result

    def close(self) -> None:
        """There is nothing to let go."""


def _raiser(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail
