"""The log against a list, driven by chance: steps of any kind, restarts, power cuts, failed syncs."""

from __future__ import annotations

import contextlib
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftkv.storage.log_writer import WalStep
from raftkv.storage.memory_disk import MemoryDisk, PowerCut
from raftkv.types import EntryKind, HardState
from tests.storage.sync_log import State, SyncLog, entry, metadata


class LogAgainstList(RuleBasedStateMachine):
    """`states[i]` is the model after `i` of the steps that the open log was given; the first `durable` are on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryDisk()
        self.term = 1

    @initialize(segment_size_bytes=st.sampled_from([4096, 8192, 20_000]))
    def open(self, segment_size_bytes: int) -> None:
        self.segment_size_bytes = segment_size_bytes
        self.log = SyncLog(self.disk, segment_size_bytes)
        self.states = [State()]
        self.durable = 0

    @rule(
        count=st.integers(1, 4),
        overwrite=st.integers(0, 3),
        size_bytes=st.sampled_from([0, 5, 300, 1500, 6000]),
        has_vote=st.booleans(),
        kind=st.sampled_from(EntryKind),
    )
    def append(self, count: int, overwrite: int, size_bytes: int, has_vote: bool, kind: EntryKind) -> None:
        state = self.states[-1]
        held = len(self.states[self.durable].entries)  # an acknowledged cut may already have moved the base
        first = state.base.last_index + 1 + max(len(state.entries) - min(overwrite, held), 0)
        first = max(first, self.log.files.base.last_index + 1)
        self.term += overwrite > 0
        self._write(
            WalStep(
                hard_state=HardState(self.term, count) if has_vote else None,
                entries=[entry(index, self.term, size_bytes, kind) for index in range(first, first + count)],
            )
        )

    @rule(voted_for=st.integers(0, 2**63 - 1))
    def vote(self, voted_for: int) -> None:
        self._write(WalStep(hard_state=HardState(self.term, voted_for)))

    @precondition(lambda self: self.states[self.durable].entries and self.states[self.durable] == self.states[-1])
    @rule(share=st.floats(0, 1))
    def compact(self, share: float) -> None:
        """As the runtime does: only what is applied, so durable, and never truncated again."""
        durable = self.states[self.durable]
        count = int(len(durable.entries) * share)
        if count:
            self._write(WalStep(cut=metadata(durable.entries[count - 1].index, durable.entries[count - 1].term)))

    @rule(ahead=st.integers(1, 20), has_vote=st.booleans())
    def reset(self, ahead: int, has_vote: bool) -> None:
        state = self.states[-1]
        last_index = state.base.last_index + len(state.entries) + ahead
        self._write(
            WalStep(reset=metadata(last_index, self.term), hard_state=HardState(self.term, 1) if has_vote else None)
        )

    @rule()
    def sync(self) -> None:
        self.log.sync()
        self.durable = len(self.states) - 1

    @rule()
    def stop_and_start(self) -> None:
        self.sync()
        self.log.close()
        self._recover()

    @rule(operations=st.integers(1, 12), seed=st.integers(0, 2**32))
    def lose_power(self, operations: int, seed: int) -> None:
        self.disk.operations_left = operations
        with contextlib.suppress(PowerCut):
            self.log.sync()
        self.durable = self.log.durable_step
        self.disk.power_on(random.Random(seed))
        self._recover()

    @rule(is_power_lost=st.booleans(), seed=st.integers(0, 2**32))
    def fail_a_sync(self, is_power_lost: bool, seed: int) -> None:
        self.disk.errors["sync"] = [OSError("write-back failed")]
        with contextlib.suppress(OSError):
            self.log.sync()
        self.durable = self.log.durable_step
        if is_power_lost:
            self.disk.power_on(random.Random(seed))
        else:
            self.disk.restart_process()
        self._recover()

    @invariant()
    def reads_answer_for_what_is_durable(self) -> None:
        if self.durable == len(self.states) - 1:
            assert self.log.state() == self.states[-1]

    def _write(self, step: WalStep) -> None:
        self.log.write(step)
        self.states.append(self.states[-1].after(step))

    def _recover(self) -> None:
        self.log = SyncLog(self.disk, self.segment_size_bytes)
        found = self.log.state()
        assert found in self.states[self.durable :]
        self.states = [found]
        self.durable = 0


LogAgainstList.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_the_log_is_a_list_that_survives = LogAgainstList.TestCase
