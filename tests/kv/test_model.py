"""Any sequence of commands, cut into entries, calls, compactions, sweeps and restarts in any way: as the model says."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv import Command, Compact, Delete, KeyValueMachine, Put, Result
from raftkv.storage import MemoryStore, RocksStore, WriteBehind
from raftkv.types import Entry
from tests.kv.model import Model, commands_entry

KEYS = [b"", b"\x00", b"\x00\xff", b"\x00\x01", b"a", b"a\x00", b"a\x00\x01", b"a\xff", b"ab", b"\xff\xff"]


@dataclasses.dataclass(frozen=True)
class CompactBack:
    """A Compact that many revisions before the newest; below 0 is in the future."""

    distance: int


@dataclasses.dataclass(frozen=True)
class Sweep:
    max_count: int


@dataclasses.dataclass(frozen=True)
class Reopen:
    """Flush, crash and open again; the sweeper forgets its place."""


@dataclasses.dataclass(frozen=True)
class Apply:
    """One call of `apply` with an entry for each batch; before it the first is prepared, or that many are swept."""

    batches: list[list[Put | Delete | CompactBack]]
    is_prepared: bool = False
    swept_between_count: int = 0


Action: TypeAlias = Apply | Sweep | Reopen

keys = st.sampled_from(KEYS)
writes = st.one_of(
    st.builds(Put, keys, st.binary(max_size=3), st.integers(0, 2)),
    st.builds(Delete, keys),
    st.builds(CompactBack, st.integers(-1, 6)),
)
batches = st.lists(st.lists(writes, max_size=6), min_size=1, max_size=3)
applies = st.builds(Apply, batches, st.booleans(), st.sampled_from([0, 0, 1, 3]))
histories = st.lists(st.one_of(applies, applies, st.builds(Sweep, st.integers(1, 4)), st.just(Reopen())), max_size=12)


class Run:
    """One machine on a store in memory that others gather in front of, and its model, driven by the same actions."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.machine = KeyValueMachine(WriteBehind(self.store))
        self.model = Model()
        self.log: list[Entry] = []

    def do(self, action: Action) -> None:
        match action:
            case Apply():
                self.apply(action)
            case Sweep():
                self.machine.sweep(action.max_count)
            case Reopen():
                self.machine.flush()
                self.store = self.store.crashed()
                self.machine = KeyValueMachine(WriteBehind(self.store))

    def apply(self, action: Apply) -> None:
        first = len(self.log)
        expected: list[list[Result]] = []
        for batch in action.batches:
            commands: list[Command] = []
            results: list[Result] = []
            for write in batch:
                command = Compact(self.model.revision - write.distance) if isinstance(write, CompactBack) else write
                commands.append(command)
                results += self.model.run([command])
            self.log.append(commands_entry(len(self.log) + 1, commands))
            expected.append(results)
        if action.is_prepared:
            self.machine.prepare(self.log[first])
        if action.swept_between_count:
            self.machine.sweep(action.swept_between_count)
        assert self.machine.apply(self.log[first:]) == expected

    def check_reads(self) -> None:
        machine, model = self.machine, self.model
        assert (machine.revision, machine.compact_revision) == (model.revision, model.compact_revision)
        for key in KEYS:
            newest = model.states[model.revision].get(key)
            assert machine.get(key) == newest
            assert machine.value(key) == (None if newest is None else (newest.value, newest.mod_revision))
        for revision in model.kept_revisions():
            for start, stop in ((b"", None), (b"\x00\x01", b"ab"), (b"a", b"a\x00")):
                found = machine.range(start, stop, revision=revision)
                assert found.key_values == model.range(start, stop, revision), (start, stop, revision)
            for key in KEYS:
                assert machine.get_at(key, revision) == model.states[revision].get(key), (key, revision)


@settings(max_examples=150, deadline=None)
@given(histories)
def test_every_read_at_every_kept_revision_is_the_models(history: list[Action]) -> None:
    run = Run()
    for action in history:
        run.do(action)
        run.check_reads()


@settings(max_examples=20, deadline=None)
@given(histories)
def test_grouping_sweeping_and_the_store_do_not_change_the_hash(history: list[Action]) -> None:
    """One member applies as told, in memory, and sweeps; another takes entry by entry on RocksDB and never sweeps."""
    run = Run()
    for action in history:
        run.do(action)
    with tempfile.TemporaryDirectory() as directory:
        other = KeyValueMachine(RocksStore(Path(directory) / "state"))
        try:
            for entry in run.log:
                other.apply([entry])
            assert other.last_applied == run.machine.last_applied
            assert other.state_hash() == run.machine.state_hash()
        finally:
            other.close()


@settings(max_examples=100, deadline=None)
@given(histories)
def test_different_logical_states_have_different_hashes(history: list[Action]) -> None:
    """Each entry that changes something visible changes the hash, and no earlier one comes back."""
    run = Run()
    seen = {run.machine.state_hash(): (run.machine.revision, run.machine.compact_revision)}
    for action in history:
        run.do(action)
        position = (run.machine.revision, run.machine.compact_revision)
        assert seen.setdefault(run.machine.state_hash(), position) == position
    assert len(seen) == len(set(seen.values()))
