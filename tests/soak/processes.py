"""The nemesis's moves against the nodes' processes: kills, pauses, restarts, and leadership that is handed over."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.e2e.curl import NoAnswer
from tests.soak.cluster import SoakNode
from tests.soak.nemesis import DidNotHappen, Move, Scene, names
from tests.soak.plan import Kind

READY_TIMEOUT_S = 10.0
TRANSFER_TIMEOUT_S = 6.0


class Processes:
    """`moves` is what it can do, by kind. Each leaves every node running, though not yet ready."""

    def __init__(self, scene: Scene) -> None:
        self.moves: Mapping[Kind, Move] = {
            Kind.KILL: self._kill,
            Kind.KILL_ALL: self._kill_all,
            Kind.PAUSE: self._pause,
            Kind.ROLLING_RESTART: self._rolling_restart,
            Kind.TRANSFER: self._transfer,
        }
        self._scene = scene

    def _kill(self, rng: random.Random, hold_s: float) -> str:
        """One or, seldom, a few; sometimes again while they start."""
        victims = [self._scene.victim(rng)]
        if rng.random() < 0.3:
            victims = rng.sample(self._scene.nodes, rng.randint(1, len(self._scene.nodes) - 1))
        again_s = rng.uniform(0, 1) if rng.random() < 0.4 else 0.0
        self._scene.kill_and_start(victims, hold_s)
        if again_s and not self._scene.stopping.wait(again_s):
            self._scene.kill_and_start(victims, 0.0)
        return f"{names(victims)}{', again while starting' if again_s else ''}"

    def _kill_all(self, rng: random.Random, hold_s: float) -> str:
        victims = rng.sample(self._scene.nodes, len(self._scene.nodes))
        self._scene.kill_and_start(victims, hold_s / 3)
        return names(victims)

    def _pause(self, rng: random.Random, hold_s: float) -> str:
        """One or, seldom, any number; they stand still before the time begins to count."""
        victims = [self._scene.victim(rng)]
        if rng.random() < 0.3:
            victims = rng.sample(self._scene.nodes, rng.randint(1, len(self._scene.nodes)))
        for node in victims:
            node.pause()
        self._scene.stopping.wait(hold_s)
        for node in victims:
            node.resume()
        return names(victims)

    def _rolling_restart(self, rng: random.Random, _hold_s: float) -> str:
        """A stop that does not end, or ends with another status than 0, ends the run."""
        order = rng.sample(self._scene.nodes, len(self._scene.nodes))
        for node in order:
            node.stop()
            node.start()
            self._scene.wait_until(node.is_ready, READY_TIMEOUT_S)
        return names(order)

    def _transfer(self, rng: random.Random, _hold_s: float) -> str:
        """To a certain node or to anybody, asked for at any node, again until it is done."""
        before = self._scene.leader
        others = [node.node_id for node in self._scene.nodes if node is not before]
        body = rng.choice([None, *({"node_id": node_id} for node_id in others)])
        if not self._scene.wait_until(lambda: self._transfers(rng.choice(self._scene.nodes), body), TRANSFER_TIMEOUT_S):
            raise DidNotHappen(f"nobody could hand over to {body or 'anybody'}")
        return f"from {before.node_id if before else 'nobody'} to {body or 'anybody'}"

    def _transfers(self, asked: SoakNode, body: object) -> bool:
        answer = self._scene.ask(asked, "/raft/transfer", body)
        return not isinstance(answer, NoAnswer) and answer.status == 200
