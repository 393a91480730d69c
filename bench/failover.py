"""How long a cluster takes no writes after `kill -9` of its leader, with default settings.

A client keeps trying the surviving nodes in turn, and gives up on a try after a quarter of a second, as
a client that wants its write in would. The clock runs from the kill to the first 200.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.processes import BenchError, wait_until
from bench.raftkv_nodes import Node, RaftkvCluster
from bench.report import Report, Row

MEDIAN_LIMIT_S = 1.0
WORST_LIMIT_S = 2.0


def measure(directory: Path, report: Report, tries: int = 20) -> None:
    cluster = RaftkvCluster(directory / "failover")
    try:
        elapsed_s = [_one(cluster, number, report) for number in range(tries)]
    finally:
        cluster.stop()
    report.add(Row.at_most(f"fail-over, median of {tries}", statistics.median(elapsed_s), MEDIAN_LIMIT_S, "s"))
    report.add(Row.at_most(f"fail-over, worst of {tries}", max(elapsed_s), WORST_LIMIT_S, "s"))


def _one(cluster: RaftkvCluster, number: int, report: Report) -> float:
    leader = cluster.leader()
    survivors = [node for node in cluster.nodes if node is not leader]
    leader.child.kill()
    killed_at = time.monotonic()
    while not any(_put(node, number) for node in survivors):
        if time.monotonic() - killed_at > 30:
            raise BenchError("no write was accepted within 30 s after the kill")
    elapsed_s = time.monotonic() - killed_at
    report.progress(f"fail-over {number + 1}: {elapsed_s:.2f} s")
    leader.start()
    leader.wait_ready()
    wait_until(lambda: _is_level(cluster), "the killed node has caught up")
    return elapsed_s


def _put(node: Node, number: int) -> bool:
    status, _ = node.call("POST", "/store", {"key": f"failover{number}", "value": number}, timeout_s=0.25)
    time.sleep(0.005)  # a refusal comes at once; do not take the survivors' processor away
    return status == 200


def _is_level(cluster: RaftkvCluster) -> bool:
    return len({node.stats().get("applied_index") for node in cluster.nodes}) == 1
