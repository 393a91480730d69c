"""The driver's duty (raftkv.raft.effects): what is done in which order, and what waits for the disk."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, cast

import pytest

from raftkv.raft import (
    AppendEntriesReply,
    ConfirmedRead,
    Effects,
    Leadership,
    Message,
    RaftNode,
    RaftSettings,
    TimeoutNow,
)
from raftkv.runtime.driver import PASSES_A_TURN, Driver
from raftkv.storage import MemoryLog, WalStep
from raftkv.types import Configuration, Entry, EntryKind, HardState, Member, Role, SnapshotMetadata

AT_ONCE, AFTERWARDS = TimeoutNow(1, 1, 2), AppendEntriesReply(1, 1, 3, True, 1, 0, 0, 0, 0)
ENTRY = Entry(1, 1, EntryKind.COMMANDS, b"a")
SNAPSHOT = SnapshotMetadata(9, 1)
FLUSH = ("flush",)


class ScriptedCore:
    """Hands out prepared effects and notes what it is told."""

    def __init__(self, *effects: Effects) -> None:
        self.effects = deque(effects)
        self.told: list[tuple[str, int]] = []

    def has_ready(self) -> bool:
        return bool(self.effects)

    def ready(self) -> Effects:
        return self.effects.popleft()

    def persisted(self, ticket: int) -> None:
        self.told.append(("persisted", ticket))

    def applied(self, index: int) -> None:
        self.told.append(("applied", index))


class NotingPorts:
    """`DriverPorts` that note every call in order. The log gives numbers from 1."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.steps: list[WalStep] = []
        self.wake_count = 0
        self.driver: Driver

    def wake(self) -> None:
        self.wake_count += 1

    def write_log(self, step: WalStep) -> int:
        self.steps.append(step)
        self.calls.append(("write", len(self.steps)))
        return len(self.steps)

    def flush(self) -> None:
        self.calls.append(FLUSH)

    def send(self, message: Message) -> None:
        self.calls.append(("send", message))

    def apply(self, entries: list[Entry]) -> None:
        self.calls.append(("apply", entries[0].index, entries[-1].index))
        self.driver.applied(entries[-1].index)

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        self.calls.append(("install", snapshot.last_index, hard_state))

    def stream_snapshot(self, recipient: int) -> None:
        self.calls.append(("stream", recipient))

    def reads_confirmed(self, reads: list[ConfirmedRead]) -> None:
        self.calls.append(("confirmed", [read.request_id for read in reads]))

    def reads_refused(self, request_ids: list[int]) -> None:
        self.calls.append(("refused", request_ids))

    def leadership_changed(self, leadership: Leadership) -> None:
        self.calls.append(("leadership", leadership.role))

    def configuration_changed(self, configuration: Configuration) -> None:
        self.calls.append(("configuration", configuration))


def driven(*effects: Effects) -> tuple[Driver, ScriptedCore, NotingPorts]:
    core, ports = ScriptedCore(*effects), NotingPorts()
    ports.driver = Driver(cast("RaftNode", core), ports)
    return ports.driver, core, ports


def test_an_answer_that_claims_durability_leaves_when_its_step_is_durable_and_not_before() -> None:
    """Raft figure 2: "updated on stable storage before responding to RPCs"."""
    driver, core, ports = driven(
        Effects(ticket=5, entries=[ENTRY], messages=[AT_ONCE], messages_after_persist=[AFTERWARDS])
    )
    driver.process()
    assert ("send", AT_ONCE) in ports.calls
    assert ("send", AFTERWARDS) not in ports.calls
    assert core.told == []
    driver.durable(1)
    assert ports.calls[-2:] == [("send", AFTERWARDS), FLUSH]
    assert core.told == [("persisted", 5)]


def test_steps_become_durable_in_their_order_and_a_report_covers_all_before_it() -> None:
    answers = [AppendEntriesReply(1, 1, 3, True, index, 0, 0, 0, 0) for index in (1, 2, 3)]
    driver, core, ports = driven(
        *(Effects(ticket=7 + i, messages_after_persist=[answer]) for i, answer in enumerate(answers))
    )
    driver.process()
    assert [call for call in ports.calls if call[0] == "send"] == []
    driver.durable(2)
    assert [call for call in ports.calls if call[0] == "send"] == [("send", answers[0]), ("send", answers[1])]
    assert core.told == [("persisted", 8)]
    driver.durable(2)
    assert core.told == [("persisted", 8)]
    driver.durable(3)
    assert core.told == [("persisted", 8), ("persisted", 9)]


def test_a_step_is_written_as_one_with_vote_and_entries() -> None:
    driver, _, ports = driven(Effects(ticket=1, hard_state=HardState(3, 2), entries=[ENTRY]))
    driver.process()
    assert ports.steps == [WalStep(None, HardState(3, 2), [ENTRY])]


def test_effects_without_a_ticket_write_nothing() -> None:
    driver, core, ports = driven(Effects(messages=[AT_ONCE]))
    driver.process()
    assert ports.calls == [("send", AT_ONCE), FLUSH]
    driver.durable(1)
    assert core.told == []


def test_messages_leave_and_the_log_is_begun_before_the_state_is_written() -> None:
    """What others wait for comes first, and the state is written meanwhile (Thesis §10.2.1)."""
    driver, _, ports = driven(Effects(ticket=1, entries=[ENTRY], messages=[AT_ONCE], committed=[ENTRY]))
    driver.process()
    assert ports.calls == [("send", AT_ONCE), ("write", 1), FLUSH, ("apply", 1, 1)]


def test_another_turn_is_asked_for_only_when_the_core_has_something_to_say() -> None:
    driver, core, ports = driven(Effects(ticket=1), Effects(ticket=2))
    driver.process()
    driver.durable(1)
    assert ports.wake_count == 0
    core.effects.append(Effects(messages=[AT_ONCE]))
    driver.durable(2)
    assert ports.wake_count == 1


def test_whom_to_talk_to_and_who_leads_is_known_before_anything_is_applied_or_answered() -> None:
    """A batch that commits with the news of a lost leadership must be answered by the new state of things."""
    configuration = Configuration(voters=(Member(1, "node1"),))
    driver, core, ports = driven(
        Effects(
            ticket=1,
            configuration=configuration,
            leadership=Leadership(Role.FOLLOWER, 2, 3),
            committed=[ENTRY],
            reads=[ConfirmedRead(8, 1)],
            refused_reads=[9],
            snapshots_to_send=[4],
        )
    )
    driver.process()
    assert ports.calls == [
        ("write", 1),
        FLUSH,
        ("configuration", configuration),
        ("leadership", Role.FOLLOWER),
        ("apply", 1, 1),
        ("confirmed", [8]),
        ("refused", [9]),
        ("stream", 4),
    ]
    assert core.told == [("applied", 1)]


def test_a_turn_ends_after_some_passes_and_asks_for_another() -> None:
    driver, core, ports = driven(*(Effects(messages=[AT_ONCE]) for _ in range(PASSES_A_TURN + 1)))
    driver.process()
    assert len(core.effects) == 1
    assert ports.wake_count == 1
    driver.process()
    assert not core.effects
    assert ports.wake_count == 1


# ---- A snapshot to install


def test_while_a_snapshot_is_installed_everything_else_waits_and_then_goes_on() -> None:
    after = AppendEntriesReply(1, 1, 3, True, 9, 0, 0, 0, 0)
    driver, core, ports = driven(
        Effects(
            ticket=1, snapshot=SNAPSHOT, hard_state=HardState(3, 0), messages=[AT_ONCE], messages_after_persist=[after]
        ),
        Effects(ticket=2, entries=[Entry(10, 3, EntryKind.NOOP)]),
    )
    driver.process()
    driver.process()
    assert ports.calls == [("install", 9, HardState(3, 0))]
    assert driver.is_installing
    driver.installed()
    assert ports.calls[1:] == [("send", AT_ONCE), ("write", 1), FLUSH]
    assert ports.wake_count == 1
    driver.process()
    assert ports.steps[-1].entries == [Entry(10, 3, EntryKind.NOOP)]
    driver.durable(2)
    assert ports.calls[-2:] == [("send", after), FLUSH]
    assert core.told == [("persisted", 2)]


def test_what_was_written_before_the_snapshot_is_reported_while_it_is_installed() -> None:
    driver, core, ports = driven(
        Effects(ticket=1, messages_after_persist=[AFTERWARDS]), Effects(ticket=2, snapshot=SNAPSHOT)
    )
    driver.process()
    driver.durable(1)
    assert core.told == [("persisted", 1)]
    assert ports.calls[-2:] == [("send", AFTERWARDS), FLUSH]


def test_a_report_of_no_install_changes_nothing() -> None:
    driver, _, ports = driven()
    driver.installed()
    assert ports.calls == []


# ---- With the real core


@pytest.mark.parametrize("seed", range(20))
def test_a_lone_server_driven_in_any_order_applies_exactly_what_it_made_durable(seed: int) -> None:
    """The log reports late and in bursts; proposals and turns come in between."""
    order = random.Random(seed)
    log = MemoryLog()
    log.write(WalStep(reset=SnapshotMetadata(configuration=Configuration(voters=(Member(1, "node1"),)))))
    core = RaftNode(RaftSettings(member_id=1), log, random.Random(seed))
    ports = NotingPorts()
    driver = ports.driver = Driver(core, ports)
    core.campaign()
    durable_count = 0
    proposed: dict[int, bytes] = {}
    for number in range(60):
        if core.is_leader and order.random() < 0.5:
            data = str(number).encode()
            proposed[core.propose(data)[0]] = data
        if order.random() < 0.7:
            driver.process()
        if order.random() < 0.5:
            target = order.randint(durable_count, len(ports.steps))
            for step in ports.steps[durable_count:target]:
                log.write(step)
            durable_count = target
            driver.durable(durable_count)
        applied = max((call[2] for call in ports.calls if call[0] == "apply"), default=0)
        assert applied <= log.last_index
    driver.process()
    for step in ports.steps[durable_count:]:
        log.write(step)
    driver.durable(len(ports.steps))
    driver.process()
    spans = [(call[1], call[2]) for call in ports.calls if call[0] == "apply"]
    indexes = [index for first, last in spans for index in range(first, last + 1)]
    assert indexes == list(range(1, log.last_index + 1))
    assert {entry.index: entry.data for entry in log.entries(1, log.last_index, 1 << 30) if entry.data} == proposed
