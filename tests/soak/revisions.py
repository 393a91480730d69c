"""What the revisions in the answers must obey: one count of all changes to all keys, in the order of real time.

Linearizability of each key by itself (the history's check) would not notice two counts side by side, or time that runs
backwards on a node. Here every answer that carries a revision is held against those that came before it was asked for.
"""

from __future__ import annotations

import enum
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class What(enum.StrEnum):
    PUT = "put"
    DELETE = "delete"
    FRESH_READ = "linearizable read"
    LOCAL_READ = "local read"


class Sight(NamedTuple):
    """An answer of `node_id`; `revision` is a write's own, and a read's that of the state that was read."""

    what: What
    node_id: str
    call_s: float
    return_s: float
    revision: int

    def __str__(self) -> str:
        return f"{self.what} on {self.node_id} [{self.call_s:.6f}, {self.return_s:.6f}] at revision {self.revision}"


def problems_with(sights: Iterable[Sight]) -> Iterator[str]:
    """`sights` without local reads that were marked as stale."""
    by_node: defaultdict[str, list[Sight]] = defaultdict(list)
    puts: dict[int, Sight] = {}
    everywhere: list[Sight] = []
    for sight in sights:
        if sight.what in {What.FRESH_READ, What.LOCAL_READ}:
            by_node[sight.node_id].append(sight)
        if sight.what is not What.LOCAL_READ:
            everywhere.append(sight)
        if sight.what is What.PUT and puts.setdefault(sight.revision, sight) is not sight:
            yield f"two puts at one revision: {puts[sight.revision]}; {sight}"
    yield from _backwards(everywhere)
    for reads in by_node.values():
        yield from _backwards(reads)


def _backwards(sights: list[Sight]) -> Iterator[str]:
    """Those that are behind one that had returned before they were called; a put must be ahead of it."""
    returning: list[tuple[float, Sight]] = []
    newest: Sight | None = None
    for sight in sorted(sights, key=lambda sight: sight.call_s):
        while returning and returning[0][0] < sight.call_s:
            returned = heapq.heappop(returning)[1]
            if newest is None or returned.revision > newest.revision:
                newest = returned
        if newest is not None and sight.revision < newest.revision + (sight.what is What.PUT):
            yield f"time runs backwards: after {newest} came {sight}"
        heapq.heappush(returning, (sight.return_s, sight))
