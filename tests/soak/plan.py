"""What is going to be done, and to what kind of cluster: all of it follows from the seed alone.

Of the nemesis's two endless lists of steps one is for the processes, one for the network; they are carried out at the
same time, each in its own order. Kinds come from a shuffled deck, so that each has happened once before any comes a
second time. A step names no node: whom it hits depends on who leads at that moment, and `Step.seed` decides the rest.
"""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Kind(enum.StrEnum):
    """Processes first, then the network."""

    KILL = "kill -9"
    KILL_ALL = "kill -9 of all"
    PAUSE = "pause"
    ROLLING_RESTART = "rolling restart"
    TRANSFER = "transfer"
    REMOVE = "remove and join"
    WIPE = "wipe and join"
    STRAGGLER = "straggler"

    ISOLATE = "isolation"
    SPLIT = "split"
    ONE_WAY = "one-way partition"
    PARTIAL = "partial partition"
    DELAY = "delay"
    CUT = "cut connections"


class Step(NamedTuple):
    """`hold_s` is how long the fault lasts, `rest_s` how long nothing is done after it."""

    kind: Kind
    seed: int
    hold_s: float
    rest_s: float

    def __str__(self) -> str:
        return f"{self.kind} {self.seed:08x}, hold {self.hold_s:.2f} s, rest {self.rest_s:.2f} s"


PROCESS_DECK = (
    *(Kind.KILL, Kind.KILL_ALL, Kind.PAUSE, Kind.ROLLING_RESTART),
    *(Kind.TRANSFER, Kind.REMOVE, Kind.WIPE, Kind.STRAGGLER),
)
NETWORK_DECK = (Kind.ISOLATE, Kind.SPLIT, Kind.ONE_WAY, Kind.PARTIAL, Kind.DELAY, Kind.CUT)
HOLD_S = (0.1, 3.0)
"""Around the election timeout of 0.4 to 0.8 s and beyond the dial timeout of 2 s."""
LONG_HOLD_S = (6.0, 12.0)
"""Beyond the nodes' other timeouts: of a stalled write, of a handshake, of telling a removed member that it is one."""
LONG_SHARE = 0.06
PROCESS_REST_S = (0.3, 1.5)
NETWORK_REST_S = (0.5, 3.0)


def process_steps(seed: int) -> Iterator[Step]:
    return _steps(f"{seed}/processes", PROCESS_DECK, PROCESS_REST_S)


def network_steps(seed: int) -> Iterator[Step]:
    return _steps(f"{seed}/network", NETWORK_DECK, NETWORK_REST_S)


def node_count(seed: int) -> int:
    """How large the cluster is when nobody says."""
    return random.Random(f"{seed}/nodes").choice((3, 4, 5))


def settings(seed: int) -> dict[str, object]:
    """What differs from run to run: how much log and history is kept, and in what pieces a snapshot is sent."""
    rng = random.Random(f"{seed}/settings")
    return {
        "log_retention_bytes": rng.choice((0, 64 << 10)),
        "snapshot_chunk_bytes": rng.choice((4 << 10, 32 << 10)),
        "history_retention_count": rng.choice((30, 300, 3000)),
    }


def shown(seed: int, count: int) -> str:
    """The beginning of both lists, for people."""
    lists = (("processes", process_steps(seed)), ("network", network_steps(seed)))
    return "\n".join(f"{name}: {step}" for name, steps in lists for step in itertools.islice(steps, count))


def _steps(seed: str, deck: Sequence[Kind], rest_s: tuple[float, float]) -> Iterator[Step]:
    rng = random.Random(seed)
    while True:
        for kind in rng.sample(deck, len(deck)):
            hold_s = rng.uniform(*(LONG_HOLD_S if rng.random() < LONG_SHARE else HOLD_S))
            yield Step(kind, rng.getrandbits(32), hold_s, rng.uniform(*rest_s))
