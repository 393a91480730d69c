"""What the simulator's cores do is a behaviour of the specification; what a core with a bug does is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftkv.raft import commitment
from raftkv.raft.invariants import Invariants
from raftkv.raft.state import RaftState
from raftkv.runtime.driver import Driver
from raftkv.sim.checks import Checks
from raftkv.sim.recorder import Recorder, as_module, record
from raftkv.sim.run import Plan
from raftkv.sim.tuning import Tuning
from scripts.check_model import Result, check_trace, is_behaviour
from tests.spec.test_model import TIMEOUT_S, needs_tlc

COUNT = 350
SHORT_LOGS = Tuning(segment_size_bytes=4096, log_retention_bytes=600)


def validate(recorder: Recorder) -> Result:
    return check_trace(as_module(recorder, COUNT), timeout_s=TIMEOUT_S)


def plan(seed: int, spare_count: int = 1) -> Plan:
    """Few clients and short logs: elections, crashes and snapshots among few hundred actions."""
    return Plan(seed, 3, spare_count, client_count=2, think_s=0.8, tuning=SHORT_LOGS)


@needs_tlc
@pytest.mark.parametrize("seed", [1, 6])
def test_a_run_is_a_behaviour_of_the_specification(seed: int) -> None:
    recorder = record(plan(seed), COUNT)
    result = validate(recorder)
    assert is_behaviour(result), f"no action explains {recorder.actions[result.depth - 1]}\n{result.output[-2000:]}"


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the core's own checks nor the simulator's may end a run before the specification sees it."""
    monkeypatch.setattr(Invariants, "check", lambda *_: None)
    monkeypatch.setattr(Checks, "violation", lambda *_: None)


def count_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader counts its own log up to its end, not up to what its disk reported."""
    real = commitment.maybe_commit

    def maybe_commit(state: RaftState, leading: object) -> None:
        persisted_index, state.log.persisted_index = state.log.persisted_index, state.log.last_index
        real(state, leading)  # type: ignore[arg-type]
        state.log.persisted_index = persisted_index

    monkeypatch.setattr(commitment, "maybe_commit", maybe_commit)


def answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to wait for the disk is sent before it."""
    real = Driver._carry_out

    def carry_out(driver: Driver, effects: object) -> None:
        effects.messages += effects.messages_after_persist  # type: ignore[attr-defined]
        effects.messages_after_persist = []  # type: ignore[attr-defined]
        real(driver, effects)  # type: ignore[arg-type]

    monkeypatch.setattr(Driver, "_carry_out", carry_out)


@needs_tlc
@pytest.mark.usefixtures("no_checks")
@pytest.mark.parametrize(
    ("plant", "odd"),
    [
        (answer_at_once, {"sentRequest"}),
        (count_unwritten, {"commit"}),
    ],
)
def test_a_core_with_a_bug_does_what_no_action_explains(
    plant: Callable[[pytest.MonkeyPatch], None], odd: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(1, 7):  # not every run meets the bug
        recorder = record(plan(seed), COUNT)
        result = validate(recorder)
        if not is_behaviour(result):
            assert recorder.actions[result.depth - 1].name in odd, recorder.actions[result.depth - 1]
            return
    pytest.fail("every run of the core with the bug passed")
