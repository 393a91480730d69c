"""The nemesis's moves against membership and disks: members that leave, come back, come back empty, or lag far behind.

What no Raft cluster survives is not done: a disk is wiped only while every node surely is a voter, and the next one
only when the cluster has confirmed that this one has caught up and votes. After a change of members with an
unknown outcome a wipe waits until that can no longer happen.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Mapping

from tests.e2e.curl import Answer, NoAnswer
from tests.e2e.waiting import eventually
from tests.soak.cluster import SoakNode
from tests.soak.nemesis import PROBE_INTERVAL_S, DidNotHappen, Move, Scene
from tests.soak.plan import Kind

JOIN_TIMEOUT_S = 12.0
REMOVE_TIMEOUT_S = 6.0
LOG_CUT_TIMEOUT_S = 6.0
SNAPSHOT_TIMEOUT_S = 8.0
WHOLE_TIMEOUT_S = 8.0
PEACE_TIMEOUT_S = 60.0
LATE_CHANGE_S = 20.0
"""The longest that a change of members can be on its way: held up by a partition, then join_timeout_ms."""


class Members:
    """`moves` is what it can do, by kind. Each leaves every node running, though perhaps not yet a voter."""

    def __init__(self, scene: Scene) -> None:
        self.moves: Mapping[Kind, Move] = {
            Kind.REMOVE: self._remove,
            Kind.WIPE: self._wipe,
            Kind.STRAGGLER: self._straggler,
        }
        self._scene = scene
        self._absent: set[SoakNode] = set()
        """Perhaps no voters. A name in a configuration proves nothing after a wipe: it may be the old identity's."""
        self._unknown_change_s = -LATE_CHANGE_S

    def make_whole(self) -> None:
        """Every node runs and is a voter; raises AssertionError when that cannot be brought about."""
        for node in self._scene.nodes:
            if not node.is_running():
                node.start()
            node.resume()
        self._join_all()
        if not self._is_settled():
            eventually(self._is_settled, "no change of members is on its way", LATE_CHANGE_S + 1)
            self._join_all()

    def _join_all(self) -> None:
        for node in self._scene.nodes:
            eventually(functools.partial(self._joins, node), f"{node.node_id} is a voter", PEACE_TIMEOUT_S)

    def _is_settled(self) -> bool:
        return time.monotonic() - self._unknown_change_s >= LATE_CHANGE_S

    def _remove(self, rng: random.Random, hold_s: float) -> str:
        """Removed, away for a while, back with its old data."""
        self._require_whole()
        victim = self._scene.victim(rng)
        is_sure = self._ask_to_remove(rng, victim)
        self._scene.stopping.wait(hold_s)
        self._wait_joined(victim)
        if not is_sure:
            raise DidNotHappen(f"{victim.node_id} perhaps removed, and joined")
        return f"{victim.node_id} removed and joined"

    def _wipe(self, rng: random.Random, hold_s: float) -> str:
        """Its disk is lost, perhaps after it was removed; it comes back empty, and asks to be taken in by itself."""
        self._require_whole()
        if not self._is_settled():
            raise DidNotHappen("a change of members may still be on its way")
        victim = self._scene.victim(rng)
        is_removed = rng.random() < 0.4 and self._ask_to_remove(rng, victim)
        self._absent.add(victim)
        victim.kill()
        victim.wipe()
        self._scene.stopping.wait(hold_s / 2)
        victim.start()
        if rng.random() < 0.3 and not self._scene.stopping.wait(rng.uniform(0, 1)):
            self._scene.kill_and_start([victim], 0.0)
        self._wait_joined(victim)
        return f"{victim.node_id} {'removed, ' if is_removed else ''}wiped and joined"

    def _straggler(self, rng: random.Random, _hold_s: float) -> str:
        """Down until the leader has cut its log beyond what it has; perhaps killed while the snapshot comes."""
        victim = rng.choice([node for node in self._scene.nodes if node is not self._scene.leader])
        last_index = int(victim.glance().get("last_log_index", 0))
        victim.kill()
        installed_count = victim.snapshots_installed()
        self._scene.wait_until(lambda: self._cut_index() > last_index, LOG_CUT_TIMEOUT_S)
        victim.start()
        if rng.random() < 0.4 and not self._scene.stopping.wait(rng.uniform(0.2, 1)):
            self._scene.kill_and_start([victim], 0.0)
        if not self._scene.wait_until(lambda: victim.snapshots_installed() > installed_count, SNAPSHOT_TIMEOUT_S):
            raise DidNotHappen(f"{victim.node_id} got no snapshot")
        return f"{victim.node_id} got a snapshot"

    def _cut_index(self) -> int:
        leader = self._scene.leader
        return int(leader.glance().get("last_snapshot_index", 0)) if leader else 0

    def _ask_to_remove(self, rng: random.Random, victim: SoakNode) -> bool:
        """Until it surely was, or nobody knows; True if it surely was."""
        self._absent.add(victim)
        answers: list[Answer | NoAnswer] = []

        def is_answered() -> bool:
            answers.append(self._scene.ask(rng.choice(self._scene.nodes), "/raft/remove", {"node_id": victim.node_id}))
            return isinstance(answers[-1], NoAnswer) or answers[-1].outcome != "rejected"

        if not self._scene.wait_until(is_answered, REMOVE_TIMEOUT_S):
            raise DidNotHappen(f"{victim.node_id} not removed: {answers[-1:]}")
        if isinstance(answers[-1], NoAnswer) or answers[-1].outcome != "done":
            self._unknown_change_s = time.monotonic()
            return False
        return True

    def _require_whole(self) -> None:
        """Wait, not for long, until every node surely is a voter."""
        deadline_s = time.monotonic() + WHOLE_TIMEOUT_S
        while True:
            for node in tuple(self._absent):
                self._wait_joined(node)
            try:
                return self._look_whole()
            except DidNotHappen:
                if self._scene.stopping.wait(PROBE_INTERVAL_S) or time.monotonic() > deadline_s:
                    raise

    def _look_whole(self) -> None:
        """Every node is a voter, as the leader has committed it, and that leader leads after it has said so."""
        leader = self._scene.leader
        stats = leader.glance() if leader else {}
        if not leader or str(stats.get("state")).lower() != "leader" or stats["is_configuration_joint"]:
            raise DidNotHappen("no leader, or in the middle of a change")
        voters = {str(m["id"]) for m in stats["latest_configuration"] if str(m["suffrage"]).lower() == "voter"}
        missing = [node for node in self._scene.nodes if node.node_id not in voters]
        self._absent.update(missing)  # a leader that had been replaced may have called it a voter
        if missing or stats["latest_configuration_index"] > stats["commit_index"]:
            raise DidNotHappen(f"not everybody is a voter, only {sorted(voters)}")
        try:
            answer = leader.fetch_linearizable("whoever")
        except NoAnswer as no_answer:
            raise DidNotHappen("the leader does not answer") from no_answer
        if answer.status not in {200, 404} or int(answer.headers["x-raftkv-term"]) != stats["term"]:
            raise DidNotHappen(f"{leader.node_id} does not lead any more")

    def _wait_joined(self, node: SoakNode) -> None:
        if not self._scene.wait_until(lambda: self._joins(node), JOIN_TIMEOUT_S):
            raise DidNotHappen(f"{node.node_id} is not back yet")

    def _joins(self, node: SoakNode) -> bool:
        """Ask everyone in turn to join it. A 200 says that the very node that answers there now is a voter."""
        for asked in self._scene.nodes:
            answer = self._scene.ask(asked, "/raft/join", {"node_id": node.node_id, "raft_address": node.raft_address})
            if not isinstance(answer, NoAnswer) and answer.status == 200:
                self._absent.discard(node)
                return True
        return False
