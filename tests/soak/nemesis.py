"""Carries out a plan: one track a list of steps, each in a thread of its own, and one log of what really happened.

A move says what it did, or raises `DidNotHappen`; only what happened is counted. Any other error ends the run.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from tests.e2e.curl import Answer, NoAnswer, curl
from tests.soak.cluster import SoakCluster, SoakNode, Watch
from tests.soak.plan import Kind, Step

Move: TypeAlias = Callable[[random.Random, float], str]
"""Takes what decides its details and for how long the fault is to last; says what it did."""
CALL_TIMEOUT_S = 10.0
"""Longer than a forwarded change of members may take: join_timeout_ms and 3 s."""
PROBE_INTERVAL_S = 0.1


class DidNotHappen(Exception):
    """The step found nothing to do, or what it asked for was refused."""


class FaultLog:
    """Every step with its time on the clock of the run, in a file from the first moment on, and counted by kind."""

    def __init__(self, path: Path, now_s: Callable[[], float]) -> None:
        self.path = path
        self.happened: Counter[Kind] = Counter()
        self.skipped: Counter[Kind] = Counter()
        self._now_s = now_s
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        with self._lock, self.path.open("a") as file:
            file.write(f"{self._now_s():10.3f}  {text}\n")


class Track:
    """One list of steps, one after the other until `stopping`; `run` is for a thread of its own.

    Steps for which there is no move are left out.
    """

    def __init__(self, steps: Iterator[Step], moves: Mapping[Kind, Move], log: FaultLog) -> None:
        self._steps = steps
        self._moves = moves
        self._log = log

    def run(self, stopping: threading.Event) -> None:
        for step in self._steps:
            if stopping.is_set():
                return
            if step.kind not in self._moves:
                continue
            self._log.note(f"{step}")
            try:
                text = self._moves[step.kind](random.Random(step.seed), step.hold_s)
            except DidNotHappen as reason:
                self._log.skipped[step.kind] += 1
                self._log.note(f"{step.kind}: did not happen: {reason}")
            else:
                self._log.happened[step.kind] += 1
                self._log.note(f"{step.kind}: {text}")
            stopping.wait(step.rest_s)


class Scene:
    """What the moves against nodes have in common: the cluster, who leads, and the end of the run."""

    def __init__(self, cluster: SoakCluster, watch: Watch, stopping: threading.Event) -> None:
        self.cluster = cluster
        self.watch = watch
        self.stopping = stopping

    @property
    def nodes(self) -> list[SoakNode]:
        return self.cluster.all

    @property
    def leader(self) -> SoakNode | None:
        """The newest that was seen; it may be down by now."""
        return next((node for node in self.nodes if node.node_id == self.watch.leader), None)

    def victim(self, rng: random.Random) -> SoakNode:
        """The leader more often than the others."""
        anybody, is_leader_meant = rng.choice(self.nodes), rng.random() < 0.4
        return (self.leader if is_leader_meant else None) or anybody

    def kill_and_start(self, victims: Sequence[SoakNode], down_s: float) -> None:
        for node in victims:
            node.kill()
        self.stopping.wait(down_s)
        for node in victims:
            node.start()

    def ask(self, node: SoakNode, path: str, body: object) -> Answer | NoAnswer:
        try:
            return curl("POST", node.address, path, body, timeout_s=CALL_TIMEOUT_S)
        except NoAnswer as no_answer:
            return no_answer

    def wait_until(self, probe: Callable[[], object], timeout_s: float) -> bool:
        """False when it was not so in time, or the run ends."""
        deadline_s = time.monotonic() + timeout_s
        while not self.stopping.wait(PROBE_INTERVAL_S) and time.monotonic() < deadline_s:
            if probe():
                return True
        return False


def names(nodes: Sequence[SoakNode]) -> str:
    return ", ".join(node.node_id for node in nodes)
