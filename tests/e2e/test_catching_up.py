"""Every node gets every key although the log was cut, and a cluster that has cut its log starts again.

The settings make logs and flushes so small that a few thousand writes cut the log many times.
"""

from __future__ import annotations

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.e2e.load import missing, store_all
from tests.e2e.node import Node
from tests.e2e.waiting import eventually

KEYS = [f"key{number:05d}" for number in range(1500)]
VALUE_SIZE = 800


@pytest.fixture
def small(make_cluster: MakeCluster) -> Cluster:
    """Logs of a few hundred KiB; 1,500 values of 800 bytes are four times as much."""
    return make_cluster(
        segment_size_bytes=64 << 10,
        flush_interval_bytes=64 << 10,
        log_retention_bytes=64 << 10,
        disk_reserve_bytes=0,
        snapshot_chunk_bytes=16 << 10,
    )


def wait_cut(node: Node, beyond: int) -> None:
    """Until the node's log no longer has the entry `beyond`."""
    eventually(lambda: int(node.stats()["last_snapshot_index"]) > beyond, f"{node.node_id} has cut its log")


def test_a_fresh_node_gets_every_key(small: Cluster) -> None:
    node1, *_ = small.form(2)
    store_all(node1, KEYS, VALUE_SIZE)
    wait_cut(small.leader(), beyond=10)

    (node3,) = small.start("node3")
    answer = node1.join(node3)

    assert answer.status == 200, answer
    small.wait_level()
    assert missing(node3, KEYS, VALUE_SIZE) == []
    node3.kill()
    node3.start().wait_ready()
    assert missing(node3, KEYS, VALUE_SIZE) == [], "what came as a snapshot is as durable as the rest"


def test_a_node_that_was_away_for_long_gets_every_key(small: Cluster) -> None:
    node1, _, node3 = small.form()
    store_all(node1, KEYS[:500], VALUE_SIZE)
    small.wait_level()
    node3.kill()
    last_index = int(node1.stats()["last_log_index"])
    assert node1.delete(KEYS[0]).status == 200
    store_all(node1, KEYS[500:], VALUE_SIZE)
    for node in small.running():
        wait_cut(node, beyond=last_index)

    node3.start().wait_ready()

    small.wait_level()
    assert missing(node3, KEYS[1:], VALUE_SIZE) == []
    assert node3.fetch(KEYS[0]).status == 404, "deletes arrive too"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_cluster_that_has_cut_its_log_many_times_starts_again_whole(small: Cluster, how: str) -> None:
    nodes = small.form()
    store_all(nodes[0], KEYS, VALUE_SIZE)
    for node in nodes:
        wait_cut(node, beyond=10)
    for node in nodes:
        if how == "stopped":
            node.stop()
        else:
            node.kill()

    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()

    small.wait_level()
    for node in nodes:
        assert missing(node, KEYS, VALUE_SIZE) == []
    assert small.leader().store("after", 1).status == 200


def test_a_node_that_is_killed_while_it_is_fed_starts_again_and_gets_every_key(small: Cluster) -> None:
    node1, *_ = small.form(2)
    store_all(node1, KEYS, VALUE_SIZE)
    wait_cut(small.leader(), beyond=10)
    node3 = small.add("node3").start().wait_ready()
    assert node1.join(node3).status == 200
    node3.kill()
    last_index = int(node1.stats()["last_log_index"])
    more = [f"more{number:05d}" for number in range(600)]
    store_all(node1, more, VALUE_SIZE)
    for node in small.running():
        wait_cut(node, beyond=last_index)

    for _ in range(3):  # it dies again wherever the snapshot has come to
        node3.start()
        eventually(lambda: node3.get_raw("/health").status > 0, "node3 answers")
        node3.kill()
    node3.start().wait_ready()

    small.wait_level()
    assert missing(node3, KEYS + more, VALUE_SIZE) == []
