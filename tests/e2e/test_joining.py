"""A join that would be unsafe is refused with a clear message and changes nothing.

Other systems answer 200 and have then lost their quorum, or have mixed two histories.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.e2e.node import Node
from tests.ports import free_port


@contextmanager
def nothing_changes(*nodes: Node) -> Iterator[None]:
    """Members stay as they were, and writes are still accepted."""
    before = [node.members() for node in nodes]
    yield
    assert [node.members() for node in nodes] == before
    for node in nodes:
        assert node.store("still", "writable").status == 200


def test_an_unreachable_address_is_refused(cluster: Cluster) -> None:
    node1, *_ = cluster.form(2)
    address = f"localhost:{free_port()}"
    with nothing_changes(node1):
        answer = node1.join_address("node9", address)
        assert 400 <= answer.status < 600, answer
        assert address in answer.error


def test_an_unreachable_address_is_refused_by_a_lone_node(cluster: Cluster) -> None:
    (node1,) = cluster.start("node1")
    with nothing_changes(node1):
        assert node1.join_address("node9", f"localhost:{free_port()}").status >= 400


def test_a_node_that_led_itself_and_holds_data_is_refused(cluster: Cluster) -> None:
    node1, loner = cluster.start("node1", "node2")
    for number in range(20):
        assert loner.store(f"own{number}", number).status == 200
    for number in range(30):
        assert node1.store(f"key{number}", number).status == 200

    with nothing_changes(node1, loner):
        answer = node1.join(loner)
        assert answer.status == 409, answer
        assert answer.outcome == "rejected"

    assert [loner.fetch(f"own{number}").status for number in range(20)] == [200] * 20
    assert [loner.fetch(f"key{number}").status for number in range(30)] == [404] * 30


def test_a_node_with_a_longer_log_of_its_own_is_refused(cluster: Cluster) -> None:
    node1, loner = cluster.start("node1", "node2")
    for number in range(50):
        assert loner.store(f"own{number}", number).status == 200
    assert node1.store("key", 1).status == 200

    with nothing_changes(node1, loner):
        assert node1.join(loner).status == 409

    assert node1.fetch("key").data["value"] == 1


def test_a_member_of_another_cluster_is_refused(make_cluster: MakeCluster) -> None:
    ours, theirs = make_cluster(), make_cluster()
    node1, *_ = ours.form(2)
    foreign = theirs.start("node5", "node6")
    assert foreign[0].join(foreign[1]).status == 200

    with nothing_changes(node1, *foreign):
        answer = node1.join(foreign[1])
        assert answer.status == 409, answer


def test_a_node_under_another_name_is_refused(cluster: Cluster) -> None:
    node1, node2 = cluster.start("node1", "node2")
    with nothing_changes(node1, node2):
        answer = node1.join(node2, node_id="node7")
        assert answer.status == 409, answer
        assert "node2" in answer.error


def test_an_address_where_something_else_answers_is_refused(cluster: Cluster) -> None:
    node1, node2 = cluster.start("node1", "node2")
    with nothing_changes(node1, node2):
        assert node1.join_address("node2", node2.address).status >= 400, "that is its HTTP port"


def test_a_fresh_node_that_led_itself_without_data_is_taken_in(cluster: Cluster) -> None:
    node1, node2 = cluster.start("node1", "node2")
    assert node2.is_leader()
    assert node1.store("key", 1).status == 200

    assert node1.join(node2).status == 200

    cluster.wait_level()
    assert node2.fetch("key").data["value"] == 1
    assert not node2.is_leader()
    node2.kill()
    node2.start().wait_ready()
    assert node2.members() == {"node1": "voter", "node2": "voter"}, "it remembers whose member it is"


def test_join_and_remove_want_their_fields(cluster: Cluster) -> None:
    (node1,) = cluster.start("node1")
    with nothing_changes(node1):
        assert 400 <= node1.join_address("", "localhost:1").status < 500
        assert 400 <= node1.join_address("node2", "").status < 500
        assert 400 <= node1.join_address("node2", "no port").status < 500
        assert 400 <= node1.remove("").status < 500
