"""Clients of your own state machine: they send commands, and every answer must fit one order of all commands.

The log is that order. So there is nothing to search: the log's commands are applied once more to a fresh machine, which
must give every client the answer that it got, and a command that was answered before another was sent must stand
before it. That is linearizability, with the order known.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from raftkv.errors import RaftkvError, Rejected
from raftkv.kv import Put, decode_batch
from raftkv.sim.history import Kind
from raftkv.sim.own import OwnMachine, OwnResult
from raftkv.sim.workload import Work, Workload
from raftkv.types import EntryKind

if TYPE_CHECKING:
    from raftkv.sim.cluster import Cluster


class _Answered(NamedTuple):
    name: bytes
    begun_s: float
    ended_s: float
    outcome: OwnResult


class OwnWorkload(Workload):
    """Every command has a name of its own, the key of the put that it travels as."""

    is_own = True

    def __init__(self, cluster: Cluster, machine: type[OwnMachine], *, client_count: int, think_s: float) -> None:
        self._machine = machine
        self._answered: list[_Answered] = []
        self._refused: set[bytes] = set()
        super().__init__(cluster, client_count=client_count, key_count=0, think_s=think_s)

    def draw(self, source: random.Random, name: str) -> Work:
        return Work(Kind.PUT, name.encode(), bytes(self._machine.random_command(source)))

    def note(
        self, name: str, kind: Kind, key: bytes, value: bytes | None, begun_s: float, ended_s: float, outcome: Any
    ) -> None:
        del name, kind, value
        if isinstance(outcome, Rejected):
            self._refused.add(key)
        elif not isinstance(outcome, RaftkvError):
            self.acknowledged_count += 1
            self._answered.append(_Answered(key, begun_s, ended_s, outcome))

    def verdict(self, cluster: Cluster) -> str:
        """What is wrong with the answers; empty for nothing."""
        expected: dict[bytes, OwnResult] = {}
        machine = self._machine()
        committed = cluster.checks.facts[cluster.cluster_id].committed
        for index in sorted(committed):
            entry = committed[index]
            if entry.kind is not EntryKind.COMMANDS:
                continue
            for place, command in enumerate(decode_batch(entry.data)):
                if isinstance(command, Put):
                    if command.key in self._refused:
                        return f"command {command.key!r} was refused, and yet it is entry {index}"
                    if command.key in expected:
                        return f"command {command.key!r} stands twice in the log, at {index} too"
                    expected[command.key] = OwnResult(index, place, bytes(machine.apply(command.value)))
        for answered in self._answered:
            if answered.outcome != expected.get(answered.name):
                return f"command {answered.name!r} was answered {answered.outcome}, not {expected.get(answered.name)}"
        return self._out_of_order()

    def _out_of_order(self) -> str:
        newest_begun = _Answered(b"", -1.0, 0.0, OwnResult(0, 0, b""))
        for answered in sorted(self._answered, key=lambda each: (each.outcome.position, each.outcome.place)):
            if answered.ended_s < newest_begun.begun_s:
                return (
                    f"command {answered.name!r} was answered before {newest_begun.name!r} was sent, "
                    "and stands behind it in the log"
                )
            newest_begun = max(newest_begun, answered, key=lambda each: each.begun_s)
        return ""
