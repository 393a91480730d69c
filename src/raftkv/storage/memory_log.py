"""The log's contract without a disk: for the core's tests and for simulated nodes.

A step is durable at once, unless the log was made with `holds_writes`: then only `sync` makes it so, and `crash` loses
everything that was not, as a power cut does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raftkv.errors import StorageError, require
from raftkv.storage.log_writer import WalStep
from raftkv.types import Entry, EntryKind, HardState, SnapshotMetadata


def _nobody(_step_number: int) -> None:
    """Default for `notify`."""


class MemoryLog:
    """Same contract as `Wal`: reads answer for what is durable; `notify(n)` says that all steps up to `n` are."""

    def __init__(self, *, notify: Callable[[int], None] = _nobody, holds_writes: bool = False) -> None:
        self.hard_state = HardState()
        self.base = SnapshotMetadata()
        self._entries: list[Entry] = []
        self._notify = notify
        self._holds_writes = holds_writes
        self._held: deque[tuple[int, WalStep]] = deque()
        self._step_number = 0
        self._accepted_last_index = 0
        self._is_closed = False

    @property
    def last_index(self) -> int:
        return self.base.last_index + len(self._entries)

    def term(self, index: int) -> int:
        if index == self.base.last_index:
            return self.base.last_term
        require(self.base.last_index < index <= self.last_index, "term of entry {} is not in the log", index)
        return self._entries[index - self.base.last_index - 1].term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries `first` to `last`, or fewer: as many as have `max_bytes` of data together, at least one."""
        if first > last:
            return []
        start = self.base.last_index + 1
        require(start <= first and last <= self.last_index, "entries {} to {}", first, last)
        found: list[Entry] = []
        for entry in self._entries[first - start : last - start + 1]:
            max_bytes -= len(entry.data)
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found

    def index_retaining(self, retained_bytes: int) -> int:
        """The lowest index from which on the entries have at most `retained_bytes` of data together."""
        first = self.last_index + 1
        for entry in reversed(self._entries):
            retained_bytes -= len(entry.data)
            if retained_bytes < 0:
                break
            first = entry.index
        return first

    def configurations(self) -> list[Entry]:
        return [entry for entry in self._entries if entry.kind is EntryKind.CONFIGURATION]

    def write(self, step: WalStep) -> int:
        """Take a step and return its number, ascending from 1."""
        if self._is_closed:
            raise StorageError("the log is closed")
        last_index = self._accepted_last_index if step.reset is None else step.reset.last_index
        if step.entries:
            first = step.entries[0].index
            base = self.base if step.reset is None else step.reset
            require(base.last_index < first <= last_index + 1, "entry {} is written behind {}", first, last_index)
            last_index = step.entries[-1].index
            require(last_index - first == len(step.entries) - 1, "entries {} to {} have a gap", first, last_index)
        self._accepted_last_index = last_index
        self._step_number += 1
        self._held.append((self._step_number, step))
        if not self._holds_writes:
            self.sync()
        return self._step_number

    def sync(self, step_count: int | None = None) -> None:
        """Make the oldest `step_count` held steps durable, all of them by default, and say so."""
        number = 0
        for _ in range(len(self._held) if step_count is None else min(step_count, len(self._held))):
            number, step = self._held.popleft()
            self._carry_out(step)
        if number:
            self._notify(number)

    def crash(self) -> None:
        """Forget what is not durable; the log can be used again, as if it had been opened anew."""
        self._held.clear()
        self.reopen(self._notify)

    def reopen(self, notify: Callable[[int], None]) -> None:
        """As opening the files of a closed log again; steps are counted anew."""
        self._notify = notify
        self._step_number = 0
        self._accepted_last_index = self.last_index
        self._is_closed = False

    def compact(self, base: SnapshotMetadata) -> None:
        """Let entries up to `base` go; nothing happens when the log begins there or further."""
        if base.last_index <= self.base.last_index:
            return
        require(base.last_index <= self.last_index, "cut up to {} of {}", base.last_index, self.last_index)
        del self._entries[: base.last_index - self.base.last_index]
        self.base = base

    def close(self) -> None:
        """Make everything held durable."""
        self.sync()
        self._is_closed = True

    def _carry_out(self, step: WalStep) -> None:
        if step.reset is not None:
            self.base = step.reset
            self._entries.clear()
        if step.hard_state is not None:
            self.hard_state = step.hard_state
        if step.entries:
            del self._entries[step.entries[0].index - self.base.last_index - 1 :]
            self._entries += step.entries
