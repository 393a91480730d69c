"""Members come, go and stop for a while under load: nothing acknowledged is lost, and all end up equal."""

from __future__ import annotations

import time

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.e2e.load import Writers, missing


def assert_all_there(cluster: Cluster, writers: Writers) -> None:
    cluster.wait_level()
    for node in cluster.running():
        assert missing(node, writers.acknowledged) == [], node.node_id
        for key in writers.rejected:
            assert node.fetch(key).status == 404, "it was answered as surely not applied"


def test_the_leader_is_paused_again_and_again(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(request_timeout_ms=1500)
    nodes = cluster.form()
    with Writers(nodes) as writers:
        for _ in range(3):
            leader = cluster.leader()
            writers.wait_acknowledged(50)
            leader.pause()
            others = [node for node in nodes if node is not leader]
            cluster.leader(among=others)
            writers.wait_acknowledged(20)
            leader.resume()
            time.sleep(0.1)  # it finds out under load
        writers.wait_acknowledged(50)
    assert_all_there(cluster, writers)


def test_a_member_is_removed_and_joins_again_and_again(cluster: Cluster) -> None:
    nodes = cluster.form()
    term = nodes[0].term()
    with Writers(nodes[:2]) as writers:
        for _ in range(3):
            assert nodes[0].remove("node3").status == 200
            writers.wait_acknowledged(30)
            answer = nodes[0].join(nodes[2])
            assert answer.status == 200, answer
            writers.wait_acknowledged(30)
    assert_all_there(cluster, writers)
    assert nodes[0].term() == term, "no leader change"
    assert writers.unknown == writers.rejected == [], "no write noticed"
