"""A node with a million keys: memory, restart, a fresh node that joins, and stalls while it is fed.

Stalls are looked for twice: by the node's own gauge, and from outside by a client that reads a key from
the leader every millisecond and remembers the slowest answer. The client shares two cores with four
nodes, so its figure is an upper bound.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from pathlib import Path
from typing import Self

from bench.processes import BenchError, settle, wait_until
from bench.raftkv_nodes import Node, RaftkvCluster
from bench.report import Report, Row

RESIDENT_LIMIT_MB = 250
RESTART_LIMIT_S = 3.0
JOIN_LIMIT_S = 20.0
STALL_LIMIT_MS = 50.0
STALL_GAUGE = "raftkv_loop_longest_stall_seconds"


class Prober:
    """Reads one key every millisecond on a kept connection until told to stop; `worst_ms` is the slowest answer."""

    def __init__(self, node: Node) -> None:
        self._address = node.address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.worst_ms = 0.0
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=10)
        while not self._stopping.wait(0.001):
            start = time.perf_counter()
            connection.request("GET", "/store/k000000000")
            connection.getresponse().read()
            self.worst_ms = max(self.worst_ms, 1e3 * (time.perf_counter() - start))
            self.count += 1
        connection.close()


def measure(directory: Path, report: Report, key_count: int) -> None:
    cluster = RaftkvCluster(directory / "scale")
    try:
        start = time.monotonic()
        cluster.fill(key_count)
        report.progress(f"{key_count:,} keys written in {time.monotonic() - start:.1f} s")
        settle(cluster.children)
        _memory(cluster, report, "after writing")
        _restart(cluster, report)  # the gauges begin anew, so that what they show after the join belongs to it
        _memory(cluster, report, "after a restart")
        settle(cluster.children)
        _join(cluster, report, key_count)
        _memory(cluster, report, "after the join")
    finally:
        cluster.stop()


def _memory(cluster: RaftkvCluster, report: Report, when: str) -> None:
    for field, word in (("VmRSS", "now"), ("VmHWM", "most so far")):
        megabytes = [child.resident_bytes(field) / 1e6 for child in cluster.children]
        row = Row.at_most(f"resident memory {when}, largest node, {word}", max(megabytes), RESIDENT_LIMIT_MB, "MB")
        report.add(row)


def _restart(cluster: RaftkvCluster, report: Report) -> None:
    follower = next(node for node in cluster.nodes if not node.is_leader())
    _stop_cleanly(follower)
    start = time.monotonic()
    follower.start()
    follower.wait_ready(60)
    report.add(Row.at_most("restart of one node to serving", time.monotonic() - start, RESTART_LIMIT_S, "s"))
    settle(cluster.children)
    for node in cluster.nodes:
        _stop_cleanly(node)
    start = time.monotonic()
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_ready(60)
    report.add(Row.at_most("restart of all nodes at once to serving", time.monotonic() - start, RESTART_LIMIT_S, "s"))


def _stop_cleanly(node: Node) -> None:
    status = node.child.stop()
    if status != 0:
        raise BenchError(f"{node.node_id} ended with {status} after SIGTERM:\n{node.child.log_tail()}")


def _join(cluster: RaftkvCluster, report: Report, key_count: int) -> None:
    leader = cluster.leader()
    stall_before_s = leader.metric(STALL_GAUGE)
    with Prober(leader) as quiet:
        time.sleep(3)
    with Prober(leader) as busy:
        start = time.monotonic()
        fresh = cluster.add_node()
        fresh.wait_ready()
        cluster.join(fresh, through=leader)
        target = int(leader.stats()["applied_index"])
        wait_until(lambda: int(fresh.stats().get("applied_index", 0)) >= target, "the fresh node has all", 120)
        elapsed_s = time.monotonic() - start
    _check_has_all(fresh, key_count)
    report.add(Row.at_most("fresh node: start, join, all keys", elapsed_s, JOIN_LIMIT_S, "s"))
    report.add(
        Row.at_most(f"slowest of {busy.count} reads of the leader meanwhile", busy.worst_ms, STALL_LIMIT_MS, "ms")
    )
    report.note(f"The same client's slowest read of an idle leader: {quiet.worst_ms:.1f} ms.")
    for node in (leader, fresh):
        stall_s = node.metric(STALL_GAUGE)
        if stall_s is None:
            report.note(f"{node.node_id} has no gauge {STALL_GAUGE}.")
        else:
            role = "fresh node" if node is fresh else "leader"
            report.add(Row.at_most(f"longest stall of the {role}'s loop", 1e3 * stall_s, STALL_LIMIT_MS, "ms"))
    if stall_before_s is not None:
        report.note(f"The leader's longest stall before the join: {1e3 * stall_before_s:.1f} ms.")


def _check_has_all(node: Node, key_count: int) -> None:
    for number in [0, key_count - 1, *random.sample(range(key_count), 500)]:
        status, _ = node.call("GET", f"/store/k{number:09d}")
        if status != 200:
            raise BenchError(f"{node.node_id} answers {status} for key {number}, which the cluster has")
