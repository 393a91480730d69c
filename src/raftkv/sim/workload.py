"""Clients of a simulated cluster: they write, delete and read a few keys on any node, and note what they saw."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from raftkv.errors import OutcomeUnknown, RaftkvError, Rejected
from raftkv.kv import Delete, KeyValue, Put
from raftkv.sim.history import FOREVER, Kind, Operation
from raftkv.sim.linearizability import check
from raftkv.sim.order_search import Undecided
from raftkv.types import Consistency, WriteMode

if TYPE_CHECKING:
    from raftkv.sim.cluster import Cluster
    from raftkv.sim.node import SimNode

GIVES_UP_AFTER_S = 5.0


class Work(NamedTuple):
    """What a client is to do next."""

    kind: Kind
    key: bytes
    value: bytes | None


class _Call:
    """One call under way. Ends once; what comes later is ignored."""

    __slots__ = ("begun_s", "is_over", "key", "kind", "node_id", "value")

    def __init__(self, kind: Kind, key: bytes, value: bytes | None, begun_s: float, node_id: str) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.begun_s = begun_s
        self.node_id = node_id
        self.is_over = False


class Client:
    """One call at a time, and a think time between two. `name` is unique."""

    def __init__(self, name: str, cluster: Cluster, workload: Workload) -> None:
        self._name = name
        self._cluster = cluster
        self._world = cluster.world
        self._random = cluster.world.random(f"client/{name}")
        self._workload = workload
        self._count = 0
        self._current: _Call | None = None
        self.think()

    def think(self) -> None:
        self._world.call_later(self._random.expovariate(1 / self._workload.think_s), self._begin)

    def _begin(self) -> None:
        workload, source = self._workload, self._random
        if workload.is_over:
            return
        node = source.choice(self._cluster.nodes)
        work = workload.draw(source, f"{self._name}-{self._count}")
        self._count += 1
        call = self._current = _Call(*work, self._world.now_s, node.node_id)
        self._world.call_later(GIVES_UP_AFTER_S, self._give_up, call)
        if not node.is_running:
            self._end(call, Rejected("nobody is there"))
            return
        life = node.life
        self._world.call_later(source.expovariate(2000), self._arrive, call, node, life)

    def _arrive(self, call: _Call, node: SimNode, life: int) -> None:
        if node.life != life or node.loop is None:
            self._end(call, OutcomeUnknown("the connection broke"))
        else:
            node.loop.call_soon(self._serve, call, node)

    def _serve(self, call: _Call, node: SimNode) -> None:
        """In the node's process."""
        if node.cluster_id != self._cluster.cluster_id:
            self._end(call, Rejected("a fresh node that nobody has joined yet: a cluster of its own"))
            return

        replica, answers = node.replica, self._cluster.checks.answers
        clients, floor, served_s = replica.clients, answers.committed(node), self._world.now_s

        def done(outcome: Any) -> None:
            if node.replica is replica and not isinstance(outcome, RaftkvError):
                if call.kind is Kind.GET:
                    answers.read(node, floor, self._world.now_s - served_s)
                elif not self._workload.is_own:
                    answers.write(node, outcome, self._world.now_s - call.begun_s)
            self._world.call_later(self._random.expovariate(2000), self._end, call, outcome)

        if call.value is not None:
            clients.submit(Put(call.key, call.value), done, WriteMode.FORWARD)
        elif call.kind is Kind.DELETE:
            clients.submit(Delete(call.key), done, WriteMode.FORWARD)
        elif self._random.random() < self._workload.local_share:
            self._read_locally(call, node)
        else:
            is_lease = self._random.random() < self._workload.lease_share
            clients.read(call.key, Consistency.LEASE if is_lease else Consistency.LINEARIZABLE, done)

    def _read_locally(self, call: _Call, node: SimNode) -> None:
        """No part of the history: it may be as old as the node is behind."""

        def done(outcome: Any) -> None:
            if not isinstance(outcome, RaftkvError) and node.replica.gate.is_confirmed:
                self._cluster.checks.answers.local_read(node)
            self._world.call_later(self._random.expovariate(2000), self._end, call, Rejected("not to be noted"))

        node.replica.clients.read(call.key, Consistency.LOCAL, done)

    def _give_up(self, call: _Call) -> None:
        self._end(call, OutcomeUnknown("the client waits no longer"))

    def connection_lost(self, node_id: str) -> None:
        if self._current is not None and self._current.node_id == node_id:
            self._end(self._current, OutcomeUnknown("the node is gone"))

    def _end(self, call: _Call, outcome: Any) -> None:
        if call.is_over:
            return
        call.is_over = True
        self._current = None
        self._workload.note(self._name, call.kind, call.key, call.value, call.begun_s, self._world.now_s, outcome)
        self.think()


class Workload:
    """`client_count` clients on `key_count` keys; `history` is what they saw."""

    is_own = False
    """Whether this is work for a state machine of the user's own."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        client_count: int = 4,
        key_count: int = 5,
        think_s: float = 0.3,
        lease_share: float = 0.0,
        local_share: float = 0.0,
        value_max_bytes: int = 0,
    ) -> None:
        self.keys = [b"key%d" % number for number in range(key_count)]
        self.think_s = think_s
        self.lease_share = lease_share
        self.local_share = local_share
        self._value_max_bytes = value_max_bytes
        self._checks = cluster.checks
        self._cluster_id = cluster.cluster_id
        self.is_over = False
        self.history: list[Operation] = []
        self.acknowledged_count = 0
        self.found_count = 0
        """Reads that found a value."""
        self.refused: list[bytes] = []
        """Values that surely were not written."""
        self._clients = [Client(f"c{number}", cluster, self) for number in range(client_count)]
        cluster.listeners.append(self._node_ended)

    def draw(self, source: random.Random, name: str) -> Work:
        """What a client does next; `name` is of this call alone, and so every value is written once only."""
        key = source.choice(self.keys)
        chance = source.random()
        if chance < 0.5:
            return Work(Kind.PUT, key, self.value(name, source))
        return Work(Kind.DELETE if chance < 0.6 else Kind.GET, key, None)

    def verdict(self, cluster: Cluster) -> str:
        """What is wrong with what the clients saw; empty for nothing."""
        written = cluster.checks.facts[cluster.cluster_id].values
        if refused := [value for value in self.refused if value in written]:
            return f"refused, yet committed: {refused[:3]}"
        try:
            found = check(self.history)
        except Undecided as undecided:
            return f"neither linearizable nor not: {undecided}"
        return f"not linearizable: {found}" if found is not None else ""

    def value(self, name: str, source: random.Random) -> bytes:
        """`name` is unique, and so is the value."""
        if not self._value_max_bytes:
            return name.encode()
        return name.encode() + b"." * source.randrange(self._value_max_bytes)

    def _node_ended(self, node: SimNode) -> None:
        for client in self._clients:
            client.connection_lost(node.node_id)

    def note(
        self, name: str, kind: Kind, key: bytes, value: bytes | None, begun_s: float, ended_s: float, outcome: Any
    ) -> None:
        if kind is Kind.GET:
            if isinstance(outcome, RaftkvError):
                return
            seen = outcome.value if isinstance(outcome, KeyValue) else None
            self.found_count += seen is not None
            self.history.append(Operation(name, kind, key, seen, begun_s, ended_s))
            return
        if isinstance(outcome, Rejected):
            if value is not None:
                self.refused.append(value)
            return
        is_unknown = isinstance(outcome, RaftkvError)
        if value is not None and not is_unknown:
            self._checks.answers.told(name, self._cluster_id, value)
        self.acknowledged_count += not is_unknown
        self.history.append(Operation(name, kind, key, value, begun_s, FOREVER if is_unknown else ended_s))
