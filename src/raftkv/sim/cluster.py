"""A whole cluster in one world: nodes, network, trace and checks; and what is true of all runs of it."""

from __future__ import annotations

import functools
from pathlib import Path

from raftkv.runtime import Settings
from raftkv.sim.checks import Checks
from raftkv.sim.network import Network
from raftkv.sim.node import SimNode
from raftkv.sim.own import OwnMachine
from raftkv.sim.trace import Trace
from raftkv.sim.tuning import Tuning
from raftkv.sim.world import World
from raftkv.types import Configuration, Member, Role

CLUSTER_ID = 7
LARGEST_CLOCK_ERROR = 0.02
"""Share by which a clock may be fast or slow: half of what a lease's margin covers (docs/reference/settings.md)."""


class Cluster:
    """`node_count` voters, and `spare_count` nodes that are fresh clusters of one, for the others to join."""

    def __init__(
        self,
        seed: int,
        node_count: int,
        spare_count: int = 0,
        tuning: Tuning | None = None,
        own_machine: type[OwnMachine] | None = None,
    ) -> None:
        self.own_machine = own_machine
        self.tuning = tuning or Tuning()
        self.world = World(seed)
        self.trace = Trace(self.world)
        self.checks = Checks(self.trace)
        self.network = Network(self.world)
        self.cluster_id = CLUSTER_ID
        self._next_member_id = 100
        self._excused: set[str] = set()
        founders = [self._member(f"n{number + 1}") for number in range(node_count)]
        founded = Configuration(voters=tuple(founders))
        for member in founders:
            self._add(member, CLUSTER_ID, founded)
        for number in range(spare_count):
            member = self._member(f"n{node_count + number + 1}")
            self._add(member, 1000 + member.member_id, Configuration(voters=(member,)))

    def _member(self, node_id: str) -> Member:
        self._next_member_id += 1
        return Member(self._next_member_id, node_id, f"{node_id}:1111", f"{node_id}:2221")

    def _add(self, member: Member, cluster_id: int, founded: Configuration) -> None:
        node = SimNode(self, member.node_id, member, cluster_id, founded)
        self.network.nodes[member.node_id] = node
        source = self.world.random(f"clock/{member.node_id}")
        node.clock_rate = 1.0 + LARGEST_CLOCK_ERROR * source.choice((-1.0, 1.0, source.uniform(-1.0, 1.0)))
        node.clock_offset_s = source.uniform(0, 1000)

    @property
    def nodes(self) -> list[SimNode]:
        return list(self.network.nodes.values())

    def node(self, node_id: str) -> SimNode:
        return self.network.nodes[node_id]

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def wipe(self, node: SimNode) -> None:
        """An empty disk: the node comes back as a fresh cluster of one, as a real one would."""
        node.kill("wiped")
        self.checks.on_disk[node.member.member_id].is_whole = False
        member = self._member(node.node_id)
        node.make_directory(member, 1000 + member.member_id, Configuration(voters=(member,)))

    def excuse(self, node: SimNode) -> None:
        """Its disk is made to fail: it may stop by itself from now on."""
        self._excused.add(node.node_id)

    def excuses(self, node: SimNode) -> bool:
        return node.node_id in self._excused

    def process_ended(self, node: SimNode) -> None:
        """For whoever waits for answers of it: connections break."""
        for listener in self.listeners:
            listener(node)

    @functools.cached_property
    def listeners(self) -> list:  # type: ignore[type-arg]
        return []

    def leader(self) -> SimNode | None:
        """Of the highest term, among those that run."""
        leading = [
            node
            for node in self.nodes
            if node.is_running and node.has_replica and node.replica.is_leader and node.cluster_id == CLUSTER_ID
        ]
        return max(leading, key=lambda node: node.replica.raft.current_term, default=None)

    def members(self) -> set[str]:
        """The members as the leader has them; all when there is none."""
        leader = self.leader()
        if leader is None:
            return set()
        return {member.node_id for member in leader.replica.raft.configuration.members().values()}

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a cluster lives as long as its run
    def _settings(self, node_id: str) -> Settings:
        return Settings(
            node_id=node_id,
            data_dir=Path("/"),
            tick_interval_ms=100,
            heartbeat_interval_ms=300,
            election_timeout_ms=1200,
            request_timeout_ms=3000,
            start_read_wait_ms=60_000,
            disk_reserve_bytes=0,
            log_retention_bytes=self.tuning.log_retention_bytes,
            history_retention_count=self.tuning.history_retention_count,
            lease_reads=True,
        )

    def settings(self, node: SimNode) -> Settings:
        return self._settings(node.node_id)

    def is_level(self) -> bool:
        """One leader that all members follow, everything committed applied by all, no change of members under way."""
        leader = self.leader()
        if leader is None or leader.replica.raft.configuration.is_joint:
            return False
        raft = leader.replica.raft
        for member in raft.configuration.members().values():
            node = self.network.node_of(member.member_id)
            if node is None or not node.is_running or node.replica.machine.last_applied != raft._state.log.last_index:
                return False
            if (
                node.replica.raft.role not in (Role.LEADER, Role.FOLLOWER)
                or node.replica.leader != leader.member.member_id
            ):
                return False
        return raft.commit_index == raft._state.log.last_index and not raft.configuration.learners
