"""Clusters that form themselves: `initial_cluster` and `join`, in whatever order the nodes come up."""

from __future__ import annotations

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.e2e.node import Node
from tests.e2e.waiting import eventually

ALL_VOTERS = {"node1": "voter", "node2": "voter", "node3": "voter"}


def listed(cluster: Cluster) -> list[Node]:
    """Three nodes that name each other in `initial_cluster`; none is started."""
    nodes = [cluster.add(f"node{number}") for number in (1, 2, 3)]
    members = ",".join(f"{node.node_id}={node.raft_address}" for node in nodes)
    for node in nodes:
        node.settings["initial_cluster"] = members
    return nodes


def wait_formed(nodes: list[Node]) -> None:
    for node in nodes:
        eventually(lambda node=node: node.members() == ALL_VOTERS, f"{node.node_id} knows all voters", 30)  # type: ignore[misc]
        node.wait_ready()


def test_an_initial_cluster_forms_by_itself(cluster: Cluster) -> None:
    nodes = listed(cluster)
    for node in nodes:
        node.start()
    wait_formed(nodes)
    assert nodes[2].store("key", 1).status == 200
    cluster.wait_level()
    assert [node.fetch("key").data["value"] for node in nodes] == [1, 1, 1]


def test_an_initial_cluster_forms_whoever_comes_first(cluster: Cluster) -> None:
    nodes = listed(cluster)
    for node in reversed(nodes):
        node.start()
        eventually(lambda node=node: node.get_raw("/health").status > 0, f"{node.node_id} answers")  # type: ignore[misc]
    wait_formed(nodes)


def test_an_initial_cluster_is_formed_once(cluster: Cluster) -> None:
    """A restart with the same settings, of all and of the one listed first, founds nothing anew."""
    nodes = listed(cluster)
    for node in nodes:
        node.start()
    wait_formed(nodes)
    assert nodes[0].store("kept", 1).status == 200
    cluster_id = nodes[0].stats()["cluster_id"]
    for node in nodes:
        node.kill()
    for node in nodes:
        node.start()
    wait_formed(nodes)
    assert {node.stats()["cluster_id"] for node in nodes} == {cluster_id}
    assert nodes[1].fetch_linearizable("kept").data["value"] == 1


def test_a_node_told_to_join_keeps_trying_until_somebody_is_there(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    node1, node2, node3 = (cluster.add(f"node{number}") for number in (1, 2, 3))
    node2.settings["join"] = f"{node3.raft_address},{node1.raft_address}"
    node3.settings["join"] = f"{node1.raft_address},{node2.raft_address}"
    node2.start()
    node3.start()
    for node in (node2, node3):
        eventually(lambda node=node: node.get_raw("/health").status > 0, f"{node.node_id} answers")  # type: ignore[misc]

    node1.start().wait_ready()

    wait_formed([node1, node2, node3])
    assert node3.store("key", 1).status == 200
