"""Is what clients are told true at the moment when they are told? Sharper than the history, and seen at once.

The check of the history sees a stale read only if somebody wrote that very key in between. Here every answer is held
against what was committed anywhere when the request began: whoever answers a linearizable read must have applied all of
that (Thesis §6.4), and so must a node that answers from its own state what it has learnt since it started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.kv import DeleteResult, PutResult

if TYPE_CHECKING:
    from raftkv.sim.checks import Checks
    from raftkv.sim.node import SimNode

PATIENCE_S = 2.5
"""Less than a request's time: until then a forwarded write is answered only by a node that has applied it."""


class Answers:
    """Of one cluster's members."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._local_floor: dict[str, int] = {}
        """By node: what was committed when it was started, or woke from a pause."""
        self._handed_over: dict[str, int] = {}
        """By node: the last term in which it told another one to take over."""

    def committed(self, node: SimNode) -> int:
        """The highest index that anybody knows to be committed in the node's cluster."""
        return self._checks.facts[node.cluster_id].commit_index

    def woke(self, node: SimNode) -> None:
        """From here on what it applied before is no answer any more (`runtime.clients.gate`)."""
        self._local_floor[node.node_id] = self.committed(node)

    def handed_over(self, node: SimNode, term: int) -> None:
        self._handed_over[node.node_id] = term

    def read(self, node: SimNode, floor: int, waited_s: float) -> None:
        """A linearizable or lease read, asked when `floor` was committed, is being answered.

        Only a lease answers without a trip over the network; who has handed over leads without one (Thesis §6.4.1).
        """
        term = node.replica.raft.current_term
        by_lease = waited_s == 0.0 and node.replica.raft.is_leader
        self._checks.must(
            not by_lease or self._handed_over.get(node.node_id) != term,
            f"lease: {node.node_id} reads by its lease of term {term}, in which it has handed over",
        )
        applied = node.replica.machine.last_applied
        self._checks.must(
            applied >= floor, f"stale read: {node.node_id} has applied {applied}, {floor} was committed when it began"
        )

    def local_read(self, node: SimNode) -> None:
        """A local read is being answered, without the mark of staleness."""
        floor = self._local_floor.get(node.node_id, 0)
        applied = node.replica.machine.last_applied
        self._checks.must(
            applied >= floor, f"local read too early: {node.node_id} has applied {applied}, woke when {floor} was there"
        )

    def write(self, node: SimNode, result: object, waited_s: float) -> None:
        """A write is being answered with its result, in the process that took it."""
        if isinstance(result, PutResult | DeleteResult) and waited_s < PATIENCE_S:
            revision = node.replica.machine.revision
            self._checks.must(
                revision >= result.revision,
                f"own write unseen: {node.node_id} answers revision {result.revision} and is at {revision}",
            )

    def told(self, node_id: str, cluster_id: int, value: bytes) -> None:
        """The client has its answer: the put of `value` took effect."""
        self._checks.must(
            value in self._checks.facts[cluster_id].values, f"not committed: {node_id} acknowledged a put of {value!r}"
        )
