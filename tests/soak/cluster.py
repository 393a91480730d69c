"""The nodes of a soak run: real processes whose Raft traffic passes the run's `Network`.

Logs and flushes are so small that the log is cut every second or so and a node that was away needs a snapshot.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster
from tests.e2e.curl import NoAnswer, curl
from tests.e2e.node import PROGRAM, Node
from tests.soak.roads import Network

SETTINGS: dict[str, object] = {
    "segment_size_bytes": 64 << 10,
    "flush_interval_bytes": 64 << 10,
    "write_buffer_bytes": 1 << 20,
    "disk_reserve_bytes": 0,
    "request_timeout_ms": 2000,
    "join_timeout_ms": 5000,
    "shutdown_timeout_ms": 3000,
    "lease_reads": "true",
}
STATS_TIMEOUT_S = 1.0
WATCH_INTERVAL_S = 0.3


class SoakNode(Node):
    """A node in its place in the network, that remembers every time it ended without being told to."""

    def __init__(self, node_id: str, directory: Path, network: Network, **settings: object) -> None:
        super().__init__(node_id, directory, **settings)
        self.ended_by_itself: list[str] = []
        self._network = network
        self._place = network.place(node_id, self.http_port, self.raft_port)
        self.settings.update(self._place.settings)

    @property
    def address(self) -> str:
        return self._place.http_address

    @property
    def raft_address(self) -> str:
        return self._place.raft_address

    def start(self) -> Node:
        with self._network.inside(self.node_id):
            return super().start()

    def kill(self) -> None:
        self._note_its_own_end()
        super().kill()

    def terminate(self) -> None:
        self._note_its_own_end()
        super().terminate()

    def wipe(self) -> None:
        """As a new disk; the node must be down."""
        assert not self.is_running()
        shutil.rmtree(self.data_dir)

    def snapshots_installed(self) -> int:
        """In all its lives."""
        return self._count_in_log("snapshot installed")

    def times_leader(self) -> int:
        return self._count_in_log("now leader")

    def glance(self) -> dict[str, Any]:
        """Its stats, or nothing when it does not answer shortly."""
        try:
            answer = curl("GET", self.address, "/raft/stats", timeout_s=STATS_TIMEOUT_S)
            return dict(answer.data)
        except (NoAnswer, AssertionError):
            return {}

    def is_ready(self) -> bool:
        try:
            return self.get_raw("/ready").status == 200
        except NoAnswer:
            return False

    def inspect(self) -> dict[str, Any]:
        """What is on the disk of a stopped node. A damaged directory ends `raftkv inspect` with 7."""
        command = [str(PROGRAM), "inspect", "--json", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{self.node_id}: {done.stdout}{done.stderr}"
        return dict(json.loads(done.stdout))

    def _count_in_log(self, text: str) -> int:
        return self.log_path.read_text(errors="replace").count(text) if self.log_path.exists() else 0

    def _note_its_own_end(self) -> None:
        if self.is_expected_to_run and not self.is_running():
            self.ended_by_itself.append(f"{self.node_id} ended by itself:\n{self.log(line_count=20)}")


class SoakCluster(Cluster):
    """Behind one network. `nodes` does not change once it is formed."""

    def __init__(self, directory: Path, network: Network, **settings: object) -> None:
        super().__init__(directory, **{**SETTINGS, **settings})
        self.network = network

    def add(self, node_id: str, **settings: object) -> SoakNode:
        node = SoakNode(node_id, self.directory, self.network, **{**self.settings, **settings})
        self.nodes[node_id] = node
        return node

    @property
    def all(self) -> list[SoakNode]:
        return [node for node in self.nodes.values() if isinstance(node, SoakNode)]

    def form_to_stay(self, count: int) -> None:
        """Form it; from now on a node that comes with an empty directory asks the others to take it in.

        Without that it would be the leader of a cluster of its own, and store what clients send it there.
        """
        self.form(count)
        for node in self.all:
            node.settings["join"] = ",".join(other.raft_address for other in self.all if other is not node)

    def end(self) -> list[str]:
        return [problem for node in self.all for problem in node.ended_by_itself] + super().end()


class Watch:
    """Looks at every node's stats all the time: who leads, and that no term ever has two leaders."""

    def __init__(self, cluster: SoakCluster) -> None:
        self.term = 0
        self.leader = ""
        """The name of the newest leader that was seen, of `term`; it may be down by now."""
        self.problems: list[str] = []
        self._leaders: dict[int, str] = {}
        self._cluster = cluster
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            started_s = time.monotonic()
            for node in self._cluster.all:
                self._note(node.node_id, node.glance() if node.is_running() else {})
            self._stopping.wait(WATCH_INTERVAL_S - (time.monotonic() - started_s))

    def _note(self, node_id: str, stats: dict[str, Any]) -> None:
        if str(stats.get("state", "")).lower() != "leader":
            return
        term = int(stats["term"])
        known = self._leaders.setdefault(term, node_id)
        if known != node_id:
            self.problems.append(f"term {term} has two leaders: {known} and {node_id}")
        if term > self.term:
            self.term, self.leader = term, node_id
