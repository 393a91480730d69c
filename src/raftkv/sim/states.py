"""The state is a function of the entries (Raft §2): at one index one revision and one content, on every node, always.

The revision is compared wherever a node stops to apply, the content where it is worth its price: at a start, where a
crash may have torn state and position apart, and at some indexes on the way.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode

HASH_EVERY_COUNT = 24
"""Indexes; nodes that apply several at once meet at some of them."""


class States:
    def __init__(self, violation: Callable[[str], None]) -> None:
        self._violation = violation
        self._revision_at: dict[int, dict[int, tuple[int, int]]] = collections.defaultdict(dict)
        """By cluster and index: (term, revision)."""
        self._given: dict[tuple[int, str, int], tuple[str, str]] = {}
        """By cluster, what and index: the node that came there first, and what it got."""
        self._hash_at: dict[int, dict[int, str]] = collections.defaultdict(dict)

    def same_everywhere(self, node: SimNode, what: str, index: int, result: str) -> None:
        """A state machine of the user's own gives the same at the same place in the log, on every copy."""
        name, first = self._given.setdefault((node.cluster_id, what, index), (node.node_id, result))
        if result != first:
            self._violation(
                f"{what} is not deterministic: entry {index} gave {first} on {name} and {result} on {node.node_id}"
            )

    def opened(self, node: SimNode) -> None:
        machine, base = node.replica.machine, node.replica.log.wal.base
        if machine.last_applied < base.last_index:
            self._violation(
                f"{node.node_id} begins with a state of {machine.last_applied} and a log cut at {base.last_index}"
            )
            return
        self._compare(node, with_hash=True)

    def applied(self, node: SimNode) -> None:
        self._compare(node, with_hash=node.replica.machine.last_applied % HASH_EVERY_COUNT == 0)

    def _compare(self, node: SimNode, *, with_hash: bool) -> None:
        machine = node.replica.machine
        index, cluster_id = machine.last_applied, node.cluster_id
        if node.replica.driver.is_installing or not index:
            return
        here = machine.last_applied_term, machine.revision
        known = self._revision_at[cluster_id].setdefault(index, here)
        if known != here:
            self._violation(f"states differ: {node.node_id} at {index} has (term, revision) {here}, another {known}")
        elif with_hash:
            digest = machine.state_hash()
            if self._hash_at[cluster_id].setdefault(index, digest) != digest:
                self._violation(f"states differ: {node.node_id} at {index} holds something else than another did")
