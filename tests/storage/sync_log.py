"""The real log code on a disk in memory, without an event loop: each `sync` carries out what `Wal` would."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

from raftkv.storage.disk import InlineExecutor
from raftkv.storage.log_files import LogFiles, WalSettings
from raftkv.storage.log_writer import NumberedStep, WalStep
from raftkv.storage.memory_disk import MemoryDisk
from raftkv.types import Configuration, Entry, EntryKind, HardState, Member, SnapshotMetadata

DIRECTORY = Path("/wal")
SEGMENT_SIZE_BYTES = 4096


class State(NamedTuple):
    """All that a log says."""

    hard_state: HardState = HardState()
    base: SnapshotMetadata = SnapshotMetadata()
    entries: tuple[Entry, ...] = ()

    def after(self, step: WalStep) -> State:
        """The model: what a list would hold."""
        hard_state, base, entries = self
        if step.reset is not None:
            base, entries = step.reset, ()
        if step.hard_state is not None:
            hard_state = step.hard_state
        if step.entries:
            kept = step.entries[0].index - base.last_index - 1
            entries = entries[:kept] + tuple(step.entries)
        if step.cut is not None and step.cut.last_index > base.last_index:
            entries = entries[step.cut.last_index - base.last_index :]
            base = step.cut
        return State(hard_state, base, entries)


class SyncLog:
    def __init__(self, disk: MemoryDisk, segment_size_bytes: int = SEGMENT_SIZE_BYTES) -> None:
        self.disk = disk
        settings = WalSettings(segment_size_bytes, first_burst_number=1000)
        self.files = LogFiles.open(disk, DIRECTORY, settings, InlineExecutor())
        self.pending: deque[NumberedStep] = deque()
        self.durable_step = 0

    def write(self, *steps: WalStep) -> None:
        for step in steps:
            if step.cut is not None:
                self.files.accept_cut(step.cut)
            self.pending.append((self.files.accept(step), step))

    def sync(self) -> None:
        while self.pending:
            self.prove()

    def prove(self) -> None:
        """One burst; without pending steps the empty one that an orderly stop writes."""
        if burst := self.files.write_burst(self.pending):
            self.durable_step = burst.last_step or self.durable_step

    def put(self, *steps: WalStep) -> None:
        """Each step in its own burst."""
        for step in steps:
            self.write(step)
            self.sync()

    def close(self) -> None:
        self.prove()
        self.files.close()

    def state(self) -> State:
        log = self.files
        first = log.base.last_index + 1
        return State(log.hard_state, log.base, tuple(log.entries(first, log.last_index, 1 << 40)))


def entry(index: int, term: int = 1, size_bytes: int = 20, kind: EntryKind = EntryKind.COMMANDS) -> Entry:
    """Distinct for each index and term."""
    text = f"{index}@{term} ".encode()
    return Entry(index, term, kind, (text * (size_bytes // len(text) + 1))[:size_bytes])


def append(first: int, last: int, term: int = 1, size_bytes: int = 20) -> WalStep:
    return WalStep(entries=[entry(index, term, size_bytes) for index in range(first, last + 1)])


def vote(term: int, voted_for: int = 0) -> WalStep:
    return WalStep(hard_state=HardState(term, voted_for))


def metadata(last_index: int, last_term: int = 1) -> SnapshotMetadata:
    members = (Member(7, "node1", "127.0.0.1:1111"), Member(8, "node2", "127.0.0.1:1112"))
    return SnapshotMetadata(last_index, last_term, Configuration(members), min(last_index, 3))


def segment_file(sequence: int) -> Path:
    return DIRECTORY / f"{sequence:016x}.wal"
