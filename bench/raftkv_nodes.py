"""raftkv processes with default settings, joined by the published calls."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench import wrk
from bench.processes import BenchError, Child, free_ports, wait_until
from bench.sample import Sample

PROGRAM = Path(sys.executable).with_name("raftkv")
FILL_CONNECTION_COUNT = 128


class Node:
    """One `raftkv serve` that can be stopped, killed and started again on the same directory and ports."""

    def __init__(self, node_id: str, directory: Path) -> None:
        if not PROGRAM.exists():
            raise BenchError(f"{PROGRAM} is missing: run make install")
        self.node_id = node_id
        self.data_dir = directory / node_id
        self._log_path = directory / f"{node_id}.log"
        http_port, raft_port = free_ports(2)
        self.address = f"127.0.0.1:{http_port}"
        self.raft_address = f"127.0.0.1:{raft_port}"
        self._env = {
            "RAFT_NODE_ID": node_id,
            "RAFT_VOL_DIR": str(self.data_dir),
            "SERVER_PORT": str(http_port),
            "RAFT_PORT": str(raft_port),
        }
        self.child: Child
        self.start()

    def start(self) -> None:
        self.child = Child(self.node_id, [str(PROGRAM), "serve"], self._log_path, self._env)

    def call(self, method: str, path: str, body: object = None, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """Status and body; status 0 when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()
        except OSError:
            return 0, b""

    def stats(self) -> dict[str, Any]:
        """Empty when nobody answers."""
        status, body = self.call("GET", "/raft/stats", timeout_s=2)
        return dict(json.loads(body)["data"]) if status == 200 else {}

    def is_ready(self) -> bool:
        return self.call("GET", "/ready", timeout_s=2)[0] == 200

    def is_leader(self) -> bool:
        return str(self.stats().get("state", "")).lower() == "leader"

    def metric(self, name: str) -> float | None:
        """The highest of the samples of that name; None when there is none."""
        _, body = self.call("GET", "/metrics", timeout_s=5)
        lines = (line for line in body.decode().splitlines() if line.split("{")[0].split(" ")[0] == name)
        return max((float(line.rpartition(" ")[2]) for line in lines), default=None)

    def wait_ready(self, timeout_s: float = 30.0) -> float:
        def is_up() -> bool:
            if not self.child.is_running():
                raise BenchError(f"{self.node_id} ended:\n{self.child.log_tail()}")
            return self.is_ready()

        return wait_until(is_up, f"{self.node_id} is ready", timeout_s, pause_s=0.01)


class RaftkvCluster:
    name = "raftkv"

    def __init__(self, directory: Path, node_count: int = 3) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        self.nodes = [Node(f"node{number}", directory) for number in range(1, node_count + 1)]
        try:
            for node in self.nodes:
                node.wait_ready()
            for node in self.nodes[1:]:
                self.join(node, through=self.nodes[0])  # until then each leads itself, so none is "the leader"
            self._check_members()
        except BaseException:
            self.stop()
            raise

    @property
    def children(self) -> list[Child]:
        return [node.child for node in self.nodes]

    def _check_members(self) -> None:
        members = {str(member["id"]) for member in self.leader().stats()["latest_configuration"]}
        if members != {node.node_id for node in self.nodes}:
            raise BenchError(f"the cluster has the members {members}")

    def join(self, node: Node, through: Node) -> None:
        body = {"node_id": node.node_id, "raft_address": node.raft_address}
        status, answer = through.call("POST", "/raft/join", body, timeout_s=60)
        if status != 200:
            raise BenchError(f"join of {node.node_id}: {status} {answer.decode()}")

    def add_node(self) -> Node:
        """One more process, not joined yet."""
        node = Node(f"node{len(self.nodes) + 1}", self._directory)
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        for node in self.nodes:
            node.child.stop()

    def leader(self, timeout_s: float = 10.0) -> Node:
        """The leader with the highest term, once there is one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            leaders = []
            for node in self.nodes:
                stats = node.stats() if node.child.is_running() else {}
                if str(stats.get("state", "")).lower() == "leader":
                    leaders.append((int(stats["term"]), node.node_id, node))
            if leaders:
                return max(leaders)[2]
            time.sleep(0.02)
        raise BenchError("raftkv has no leader")

    def fill(self, key_count: int) -> None:
        """Every key once, through the leader."""
        leader = self.leader()
        target = int(leader.stats()["revision"]) + key_count
        sample = wrk.run_until(
            lambda: int(leader.stats().get("revision", 0)) >= target,
            "fill.lua",
            leader.address,
            FILL_CONNECTION_COUNT,
            "0",
            str(key_count),
        )
        if sample.error_count or int(leader.stats()["revision"]) < target:
            raise BenchError(f"{sample.error_count} puts failed while the keys were written")

    def writes(self, connection_count: int, duration_s: int, key_count: int) -> Sample:
        """Puts of random keys through the leader."""
        target = [self.leader().address]
        wrk.run("put.lua", target, connection_count, 1, str(key_count))  # warm-up, as h2load's
        return wrk.run("put.lua", target, connection_count, duration_s, str(key_count))

    def reads(self, connection_count: int, duration_s: int, key_count: int, is_linearizable: bool) -> Sample:
        """Gets of random keys from the leader."""
        level = "linearizable" if is_linearizable else "local"
        target = [self.leader().address]
        wrk.run("get.lua", target, connection_count, 1, str(key_count), level)
        return wrk.run("get.lua", target, connection_count, duration_s, str(key_count), level)
