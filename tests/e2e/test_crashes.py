"""kill -9: nothing acknowledged is lost, nothing old is seen again, and somebody leads soon."""

from __future__ import annotations

import threading
from typing import Self

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.e2e.curl import NoAnswer
from tests.e2e.load import Writers
from tests.e2e.node import Node
from tests.e2e.test_scenarios import missing_after_restart


@pytest.mark.parametrize("segment_kib", [65536, 256])
def test_killing_all_nodes_under_load_loses_no_acknowledged_write(make_cluster: MakeCluster, segment_kib: int) -> None:
    """With small files the kill also meets cuts of the log and flushes of the state."""
    size = segment_kib << 10
    limits = {"segment_size_bytes": size, "flush_interval_bytes": size // 2, "log_retention_bytes": size}
    cluster = make_cluster(**limits, disk_reserve_bytes=0)
    nodes = cluster.form()
    for attempt in range(2):
        with Writers(nodes, prefix=f"round{attempt}") as writers:
            writers.wait_acknowledged(800)
            for node in nodes:  # still under load
                node.kill()
        assert missing_after_restart(cluster, writers) == []


def test_a_write_is_accepted_soon_after_the_leader_is_killed(cluster: Cluster) -> None:
    nodes = cluster.form()
    term = nodes[0].term()
    with Writers(nodes[1:]) as writers:
        writers.wait_acknowledged(50)
        nodes[0].kill()
        writers.wait_acknowledged(50, timeout_s=10)  # functional only: the bench measures how soon

    leader = cluster.leader()
    assert leader.term() > term
    nodes[0].start().wait_ready()
    assert not nodes[0].is_leader(), "the old leader comes back as a follower"
    cluster.wait_level()


class Watcher:
    """Reads a key from one node without pause, from before it starts, and remembers what it was told."""

    def __init__(self, node: Node, key: str) -> None:
        self.seen: list[object] = []
        self.marked_count = 0
        self._node = node
        self._key = key
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with self._node.connect(timeout_s=2) as connection:
            while not self._stopping.is_set():
                try:
                    answer = connection.request("GET", f"/store/{self._key}")
                except NoAnswer:
                    continue
                if answer.is_marked_stale:
                    self.marked_count += 1
                elif answer.status == 200:
                    self.seen.append(answer.json["data"]["value"])
                elif answer.status == 404:
                    self.seen.append(None)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_no_reader_sees_time_run_backwards_after_a_restart(cluster: Cluster, how: str) -> None:
    leader, _, node3 = cluster.form()
    for number in range(400):
        assert leader.store("counter", number).status == 200
        if number % 100 == 0:
            assert leader.store("gone", number).status == 200
    assert leader.delete("gone").status == 200
    if how == "stopped":
        node3.stop()
    else:
        node3.kill()
    assert leader.store("counter", 400).status == 200, "it misses this one"

    with Watcher(node3, "counter") as counter, Watcher(node3, "gone") as gone:
        node3.start().wait_ready()
        cluster.wait_level()
        assert node3.fetch("counter").data["value"] == 400

    assert set(counter.seen) <= {400}, "a value older than what was acknowledged"
    assert set(gone.seen) <= {None}, "a deleted key came back"
    assert counter.marked_count == gone.marked_count == 0, "there was a leader all the time"
