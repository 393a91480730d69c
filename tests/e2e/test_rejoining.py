"""A node that was away, or removed, comes back the first time it asks and disturbs nobody.

Cause in other systems: a removed node never learns of its removal, campaigns, and returns with a higher term.
"""

from __future__ import annotations

import shutil
import time

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.waiting import eventually
from tests.ports import free_port


@pytest.mark.parametrize("away_s", [0.3, 3.0, 8.0])
def test_a_removed_node_rejoins_without_a_leader_change(cluster: Cluster, away_s: float) -> None:
    node1, node2, node3 = cluster.form()
    term = node1.term()
    assert node1.remove("node3").status == 200
    assert node1.store("while", "away").status == 200
    time.sleep(away_s)  # the time away is what is tested

    answer = node1.join(node3)

    assert answer.status == 200, answer
    assert node1.is_leader()
    assert (node1.term(), node2.term()) == (term, term)
    eventually(lambda: node3.fetch("while").data["value"] == "away", "node3 has the key")
    assert node1.members()["node3"] == "voter"


@pytest.mark.parametrize("away_s", [0.3, 3.0])
def test_a_node_that_was_paused_comes_back_without_a_leader_change(cluster: Cluster, away_s: float) -> None:
    node1, _, node3 = cluster.form()
    term = node1.term()
    node3.pause()
    assert node1.store("while", "away").status == 200
    time.sleep(away_s)  # as above

    node3.resume()

    eventually(lambda: node3.fetch("while").data["value"] == "away", "node3 has the key")
    assert node1.is_leader()
    assert node1.term() == term


def test_a_removed_node_says_so_and_does_not_campaign(cluster: Cluster) -> None:
    node1, _, node3 = cluster.form()
    term = node1.term()
    assert node1.remove("node3").status == 200

    eventually(lambda: "node3" not in node3.members(), "node3 knows that it was removed")
    time.sleep(1.5)  # several election timeouts, in which it must stay quiet

    assert node3.term() == term
    assert not node3.is_leader()


def test_the_leader_removes_itself_and_the_cluster_goes_on(cluster: Cluster) -> None:
    node1, node2, node3 = cluster.form()

    answer = node1.remove("node1")

    assert answer.status == 200, answer
    leader = cluster.leader(among=[node2, node3])
    assert leader.store("after", "removal").status == 200
    eventually(lambda: set(leader.members()) == {"node2", "node3"}, "node1 is gone")

    assert leader.join(node1).status == 200, "and it can come back"
    eventually(lambda: node1.fetch("after").status == 200, "node1 has the key")


def test_a_node_with_a_wiped_disk_joins_again_as_a_new_member(cluster: Cluster) -> None:
    node1, _, node3 = cluster.form()
    assert node1.store("kept", 1).status == 200
    node3.kill()
    shutil.rmtree(node3.data_dir)

    node3.start().wait_ready()
    answer = node1.join(node3)

    assert answer.status == 200, answer
    cluster.wait_level()
    assert node3.fetch("kept").data["value"] == 1
    assert node1.members() == {"node1": "voter", "node2": "voter", "node3": "voter"}


def test_a_node_with_a_new_address_joins_again_under_it(cluster: Cluster) -> None:
    node1, _, node3 = cluster.form()
    node3.stop()
    node3.raft_port = free_port()
    assert node1.store("moved", 1).status == 200

    node3.start()
    eventually(lambda: node3.get_raw("/health").status in {200, 503}, "node3 answers")
    answer = node1.join(node3)

    assert answer.status == 200, answer
    eventually(lambda: node3.fetch("moved").data["value"] == 1, "node3 has the key")
    addresses = {member["id"]: member["address"] for member in node1.stats()["latest_configuration"]}
    assert addresses["node3"] == node3.raft_address


def test_joining_a_member_again_changes_nothing(cluster: Cluster) -> None:
    node1, node2, _ = cluster.form()
    index = node1.stats()["latest_configuration_index"]

    answer = node1.join(node2)

    assert answer.status == 200, answer
    assert node1.stats()["latest_configuration_index"] == index


def test_membership_calls_work_on_any_node(cluster: Cluster) -> None:
    _, node2, node3 = cluster.form()

    assert node2.remove("node3").status == 200
    answer = node2.join(node3)

    assert answer.status == 200, answer
    eventually(lambda: set(node2.members()) == {"node1", "node2", "node3"}, "all are members")
