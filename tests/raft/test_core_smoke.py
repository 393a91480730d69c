"""The core end to end, in a loop that any driver could have: a quick look before the paper's claims.

Each test is one thing that a cluster must be able to do; `tests/raft/test_paper_*.py` say how it must be done.
"""

from __future__ import annotations

import random
from collections import deque

import pytest

from raftkv.errors import NotLeader, Overloaded, Unavailable
from raftkv.raft import (
    AppendEntries,
    ConfirmedRead,
    Effects,
    InstallSnapshot,
    Message,
    RaftNode,
    RaftSettings,
    decode_message,
    encode_message,
)
from raftkv.storage import MemoryLog, WalStep
from raftkv.types import Configuration, EntryKind, Member, MemberId, Role, SnapshotMetadata


def members(*member_ids: MemberId) -> tuple[Member, ...]:
    return tuple(Member(member_id, f"node{member_id}") for member_id in member_ids)


class Driver:
    """The shortest correct driver: every step is durable and applied before the next input."""

    def __init__(self, member_id: MemberId, configuration: Configuration, **knobs: object) -> None:
        self.log = MemoryLog()
        self.log.write(WalStep(SnapshotMetadata(configuration=configuration), None, []))
        settings = RaftSettings(member_id=member_id, **knobs)  # type: ignore[arg-type]
        self.node = RaftNode(settings, self.log, random.Random(member_id))
        self.applied: list[bytes] = []
        self.trace: list[Effects] = []
        self.reads: list[ConfirmedRead] = []

    def turn(self) -> list[Message]:
        sent: list[Message] = []
        while self.node.has_ready():
            effects = self.node.ready()
            self.trace.append(effects)
            sent += effects.messages
            if effects.ticket:
                self.log.write(WalStep(effects.snapshot, effects.hard_state, effects.entries))
            sent += effects.messages_after_persist
            self.applied += [entry.data for entry in effects.committed if entry.kind is EntryKind.COMMANDS]
            self.reads += effects.reads
            for member_id in effects.snapshots_to_send:
                snapshot = self.log.base
                sent.append(InstallSnapshot(self.node.current_term, self.node.status().member_id, member_id, snapshot))
            self.node.advance(effects)
        self.node.check_all()
        return sent


class Cluster:
    def __init__(self, voters: tuple[MemberId, ...], spare: tuple[MemberId, ...] = (), **knobs: object) -> None:
        initial = Configuration(members(*voters))
        self.drivers = {member_id: Driver(member_id, initial, **knobs) for member_id in voters}
        self.drivers |= {member_id: Driver(member_id, Configuration(), **knobs) for member_id in spare}
        self.down: set[MemberId] = set()

    def settle(self) -> None:
        network = deque(message for driver in self.drivers.values() for message in driver.turn())
        while network:
            message = network.popleft()
            if message.recipient in self.down or message.sender in self.down:
                continue
            driver = self.drivers[message.recipient]
            driver.node.step(decode_message(encode_message(message)))
            network += driver.turn()

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for driver in self.drivers.values():
                driver.node.tick()
            self.settle()

    @property
    def leader(self) -> RaftNode:
        nodes = [driver.node for member_id, driver in self.drivers.items() if member_id not in self.down]
        return max((node for node in nodes if node.is_leader), key=lambda node: node.current_term)

    def elect(self, member_id: MemberId) -> RaftNode:
        self.drivers[member_id].node.campaign()
        self.settle()
        assert self.leader is self.drivers[member_id].node
        return self.leader

    def applied(self) -> dict[MemberId, list[bytes]]:
        return {member_id: driver.applied for member_id, driver in self.drivers.items()}


def test_three_servers_elect_commit_and_apply() -> None:
    cluster = Cluster((1, 2, 3))
    leader = cluster.elect(1)
    for number in range(10):
        leader.propose(b"%d" % number)
    cluster.settle()
    expected = [b"%d" % number for number in range(10)]
    assert cluster.applied() == {1: expected, 2: expected, 3: expected}


def test_a_sole_voter_needs_nobody() -> None:
    cluster = Cluster((1,))
    cluster.tick(40)
    index, term = cluster.leader.propose(b"x")
    cluster.settle()
    cluster.leader.request_read(7)
    cluster.settle()
    assert (index, term) == (2, 1)
    assert cluster.drivers[1].reads == [ConfirmedRead(7, 2)]


def test_a_lost_leader_is_replaced_and_comes_back_as_a_follower() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1).propose(b"before")
    cluster.settle()
    cluster.down = {1}
    cluster.tick(60)
    assert cluster.leader is not cluster.drivers[1].node
    cluster.leader.propose(b"after")
    cluster.settle()
    cluster.down = set()
    cluster.tick(10)
    assert cluster.drivers[1].node.role is Role.FOLLOWER
    assert cluster.applied()[1] == [b"before", b"after"]


def test_a_joining_server_becomes_a_voter_by_itself() -> None:
    cluster = Cluster((1,), spare=(2, 3))
    cluster.elect(1)
    for newcomer in (2, 3):
        now = cluster.leader.configuration
        cluster.leader.propose_configuration(now.voters, members(newcomer))
        cluster.tick(10)
    assert cluster.leader.configuration == Configuration(members(1, 2, 3))
    assert cluster.drivers[3].node.configuration == cluster.leader.configuration


def test_a_leader_removes_itself_and_the_rest_goes_on() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1).propose_configuration(members(2, 3), ())
    cluster.tick(1)
    assert cluster.leader is not cluster.drivers[1].node
    assert cluster.leader.configuration == Configuration(members(2, 3))
    assert cluster.drivers[1].node.role is Role.FOLLOWER
    cluster.tick(200)
    assert cluster.drivers[1].node.current_term < cluster.leader.current_term


def test_a_server_that_slept_through_its_removal_learns_of_it() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.down = {3}
    cluster.leader.propose_configuration(members(1, 2), ())
    cluster.tick(400)
    term = cluster.leader.current_term
    cluster.down = set()
    cluster.tick(60)
    assert cluster.drivers[3].node.configuration == Configuration(members(1, 2))
    assert cluster.leader.current_term == term, "it disturbed nobody"
    cluster.tick(40)
    assert 3 not in cluster.leader.status().progress, "and is dropped once it knows"


def test_leadership_is_handed_over_without_a_vote_being_split() -> None:
    cluster = Cluster((1, 2, 3))
    old = cluster.elect(1)
    old.transfer_leadership(3)
    with pytest.raises(Unavailable):
        old.propose(b"not now")
    cluster.settle()
    assert cluster.leader is cluster.drivers[3].node
    with pytest.raises(NotLeader) as refusal:
        old.propose(b"not here")
    assert refusal.value.leader_node_id == "node3"


def test_a_read_on_a_follower_is_confirmed_by_the_leader() -> None:
    cluster = Cluster((1, 2, 3))
    index, _ = cluster.elect(1).propose(b"x")
    cluster.settle()
    cluster.drivers[2].node.request_read(9)
    cluster.settle()
    assert cluster.drivers[2].reads == [ConfirmedRead(9, index)]


def test_a_follower_far_behind_gets_a_snapshot() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.down = {3}
    for _ in range(50):
        cluster.leader.propose(b"x")
    cluster.settle()
    driver = cluster.drivers[1]
    driver.log.compact(driver.node.describe_snapshot(driver.node.last_applied))
    driver.node.compacted()
    cluster.down = set()
    cluster.tick(20)
    assert [effects.snapshot.last_index for effects in cluster.drivers[3].trace if effects.snapshot] == [51]
    cluster.leader.propose(b"behind it")
    cluster.settle()
    assert cluster.drivers[3].applied == [b"behind it"]


def test_what_waits_to_be_committed_is_bounded() -> None:
    cluster = Cluster((1, 2, 3), uncommitted_max_bytes=1000)
    leader = cluster.elect(1)
    cluster.down = {2, 3}
    leader.propose(bytes(2000))  # one alone may exceed the bound
    with pytest.raises(Overloaded):
        leader.propose(b"x")
    cluster.settle()
    cluster.down = set()
    cluster.tick(5)
    leader.propose(b"x")


def test_the_window_bounds_what_is_on_the_way() -> None:
    cluster = Cluster((1, 2, 3), inflight_max_count=4, append_max_bytes=1)
    leader = cluster.elect(1)
    cluster.settle()
    for _ in range(20):
        leader.propose(b"x")
    sent = [m for m in cluster.drivers[1].turn() if isinstance(m, AppendEntries) and m.recipient == 2]
    assert [len(message.entries) for message in sent] == [1, 1, 1, 1]
    assert leader.status().progress[2].inflight == 4


def test_the_same_inputs_give_the_same_effects() -> None:
    def run() -> list[list[Effects]]:
        cluster = Cluster((1, 2, 3), spare=(4,))
        cluster.tick(60)
        cluster.leader.propose(b"x")
        cluster.leader.propose_configuration(cluster.leader.configuration.voters, members(4))
        cluster.tick(60)
        cluster.leader.transfer_leadership()
        cluster.tick(10)
        return [driver.trace for driver in cluster.drivers.values()]

    assert run() == run()
