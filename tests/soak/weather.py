"""The nemesis's moves against the network. Each makes its faults, waits, and leaves the network healed.

A partition is silent, so that bytes wait and nobody is told, or it ends connections and refuses new ones. One that
met no traffic did not happen.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence

from tests.soak.cluster import Watch
from tests.soak.nemesis import DidNotHappen, Move
from tests.soak.plan import Kind
from tests.soak.roads import HELD, REFUSED, Condition, Network, Road

LONG_DELAY_S = 1.5
"""Far beyond the election timeout."""
CUT_INTERVAL_S = 0.2


class Weather:
    """`moves` is what it can do, by kind."""

    def __init__(self, network: Network, node_ids: Sequence[str], watch: Watch, stopping: threading.Event) -> None:
        self.moves: Mapping[Kind, Move] = {
            Kind.ISOLATE: self._isolate,
            Kind.SPLIT: self._split,
            Kind.ONE_WAY: self._one_way,
            Kind.PARTIAL: self._partial,
            Kind.CUT: self._cut,
            **({Kind.DELAY: self._delay} if network.can_delay else {}),
        }
        self._network = network
        self._nodes = tuple(node_ids)
        self._roads = [(a, b) for a in node_ids for b in node_ids if a != b]
        self._watch = watch
        self._stopping = stopping

    def _isolate(self, rng: random.Random, hold_s: float) -> str:
        victim = self._victim(rng)
        return self._partition(rng, hold_s, [road for road in self._roads if victim in road])

    def _split(self, rng: random.Random, hold_s: float) -> str:
        """Two groups; the leader may be in either, and either may be the larger."""
        side = set(rng.sample(self._nodes, rng.randint(1, len(self._nodes) - 1)))
        return self._partition(rng, hold_s, [(a, b) for a, b in self._roads if (a in side) != (b in side)])

    def _one_way(self, rng: random.Random, hold_s: float) -> str:
        """A node that hears but is not heard, or is heard but does not hear."""
        victim, end = self._victim(rng), rng.choice((0, 1))
        return self._partition(rng, hold_s, [road for road in self._roads if road[end] == victim])

    def _partial(self, rng: random.Random, hold_s: float) -> str:
        """Some pairs cannot talk while each still has others, or single roads are closed at random."""
        if rng.random() < 0.5:
            pairs = {tuple(sorted(road)) for road in self._roads}
            closed = rng.sample(sorted(pairs), rng.randint(1, max(1, len(pairs) // 3)))
            return self._partition(rng, hold_s, [road for road in self._roads if tuple(sorted(road)) in closed])
        return self._partition(rng, hold_s, rng.sample(self._roads, rng.randint(1, len(self._roads) // 2)))

    def _delay(self, rng: random.Random, hold_s: float) -> str:
        roads = rng.sample(self._roads, rng.randint(1, len(self._roads)))
        high_s = rng.choice((0.02, 0.1, 0.4, LONG_DELAY_S))
        condition = Condition(delay_s=(high_s * rng.random(), high_s))
        return self._hold(hold_s, dict.fromkeys(roads, condition), ("delayed",), f"up to {high_s:g} s")

    def _cut(self, rng: random.Random, hold_s: float) -> str:
        before = self._network.counts["cut"]
        for _ in range(1 + int(hold_s / CUT_INTERVAL_S)):
            roads = rng.sample(self._roads, rng.randint(1, len(self._roads)))
            self._network.cut(roads, is_torn=rng.random() < 0.5)
            self._stopping.wait(CUT_INTERVAL_S)
        count = self._network.counts["cut"] - before
        if not count:
            raise DidNotHappen("there were no connections")
        return f"{count} connections cut"

    def _victim(self, rng: random.Random) -> str:
        anybody = rng.choice(self._nodes)
        return self._watch.leader if rng.random() < 0.5 and self._watch.leader else anybody

    def _partition(self, rng: random.Random, hold_s: float, roads: Sequence[Road]) -> str:
        condition = rng.choice((HELD, HELD, REFUSED))
        how = "silent" if condition is HELD else "refusing"
        return self._hold(hold_s, dict.fromkeys(roads, condition), ("held", "refused"), how)

    def _hold(self, hold_s: float, conditions: Mapping[Road, Condition], counts: Iterable[str], how: str) -> str:
        before = self._met(counts)
        self._network.impose(conditions)
        self._stopping.wait(hold_s)
        self._network.heal()
        roads = ", ".join(f"{a}>{b}" for a, b in conditions)
        if self._met(counts) == before:
            raise DidNotHappen(f"nothing was sent: {roads}")
        return f"{how}, {roads}; met {self._met(counts) - before} times; leader now {self._watch.leader}"

    def _met(self, counts: Iterable[str]) -> int:
        return sum(self._network.counts[name] for name in counts)
