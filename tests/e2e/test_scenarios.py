"""The seven scenarios of the system whose interface this is, with the requests as published."""

from __future__ import annotations

from tests.e2e.cluster import Cluster
from tests.e2e.curl import curl
from tests.e2e.load import Writers, missing
from tests.e2e.waiting import eventually


def test_1_three_programs_each_lead_themselves(cluster: Cluster) -> None:
    for node in cluster.start("node1", "node2", "node3"):
        answer = curl("GET", node.address, "/raft/stats")
        assert answer.json["message"] == "Here is the raft status"
        assert str(answer.data["state"]).lower() == "leader"
        assert node.members() == {node.node_id: "voter"}


def test_2_after_the_joins_there_are_three_members_and_one_leader(cluster: Cluster) -> None:
    node1, node2, node3 = cluster.start("node1", "node2", "node3")
    for node in (node2, node3):
        body = {"node_id": node.node_id, "raft_address": node.raft_address}
        answer = curl("POST", node1.address, "/raft/join", body, timeout_s=40)
        assert answer.status == 200, answer
        message = f"node {node.node_id} at {node.raft_address} joined successfully"
        assert answer.json["message"] == message
        assert "state" in answer.data

    cluster.wait_level()
    for node in (node1, node2, node3):
        assert node.members() == {"node1": "voter", "node2": "voter", "node3": "voter"}
        assert int(node.stats()["num_peers"]) == 2
    assert [node.is_leader() for node in (node1, node2, node3)] == [True, False, False]


def test_3_what_the_leader_stores_all_others_serve_until_it_is_deleted(cluster: Cluster) -> None:
    node1, node2, node3 = cluster.form()

    answer = curl("POST", node1.address, "/store", {"key": "foo", "value": "bar"})
    assert answer.status == 200, answer
    assert answer.json == {"message": "success persisting data", "data": {"key": "foo", "value": "bar"}}
    cluster.wait_level()
    for node in (node2, node3):
        answer = curl("GET", node.address, "/store/foo")
        assert answer.json == {"message": "success fetching data", "data": {"key": "foo", "value": "bar"}}

    answer = curl("DELETE", node1.address, "/store/foo")
    assert answer.status == 200, answer
    assert answer.json == {"message": "success removing data", "data": {"key": "foo", "value": None}}
    cluster.wait_level()
    for node in (node2, node3):
        answer = curl("GET", node.address, "/store/foo")
        assert answer.status == 404
        assert "foo" in answer.error


def test_4_a_removed_node_joins_again_the_first_time(cluster: Cluster) -> None:
    node1, node2, node3 = cluster.form()

    body = {"node_id": "node3", "raft_address": node3.raft_address}
    answer = curl("POST", node1.address, "/raft/remove", body)
    assert answer.status == 200, answer
    assert answer.json["message"] == "node node3 removed successfully"
    assert set(node1.members()) == {"node1", "node2"}

    assert node1.store("while", "away").status == 200
    eventually(lambda: node2.fetch("while").status == 200, "node2 has the key")

    answer = node1.join(node3)
    assert answer.status == 200, answer
    eventually(lambda: node3.fetch("while").data == {"key": "while", "value": "away"}, "node3 has the key")


def test_5_a_stopped_node_started_again_has_what_it_missed(cluster: Cluster) -> None:
    node1, _, node3 = cluster.form()
    node3.stop()
    assert node1.store("missed", "by node3").status == 200

    node3.start().wait_ready()

    assert node3.fetch("missed").data["value"] == "by node3", "a node that is ready has what was committed before"


def test_6_a_fourth_node_joins_and_has_what_was_stored_before(cluster: Cluster) -> None:
    node1, *_ = cluster.form()
    assert node1.store("early", {"a": [1, 2.5, None, True]}).status == 200

    (node4,) = cluster.start("node4")
    answer = node1.join(node4)

    assert answer.status == 200, answer
    cluster.wait_level()
    assert node4.fetch("early").data["value"] == {"a": [1, 2.5, None, True]}
    assert node4.members() == dict.fromkeys(("node1", "node2", "node3", "node4"), "voter")


def test_7_nothing_acknowledged_is_lost_when_the_leader_and_then_all_are_killed(cluster: Cluster) -> None:
    nodes = cluster.form()
    with Writers(nodes) as writers:
        writers.wait_acknowledged(200)
        leader = cluster.leader()
        leader.kill()
        writers.wait_acknowledged(200)
        for node in cluster.running():
            node.kill()
    assert not missing_after_restart(cluster, writers)


def missing_after_restart(cluster: Cluster, writers: Writers) -> list[str]:
    """Start every node again; the acknowledged keys that any of them lacks."""
    for node in cluster.nodes.values():
        node.start()
    for node in cluster.nodes.values():
        node.wait_ready()
    cluster.wait_level()
    return [f"{node.node_id}: {key}" for node in cluster.running() for key in missing(node, writers.acknowledged)]
