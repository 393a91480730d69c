"""Starting, stopping, and being started wrongly."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.load import Writers, missing
from tests.e2e.node import PROGRAM, Node
from tests.ports import free_port


def serve(node: Node, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a second `raftkv serve` with the node's settings but ports of its own; it has to end by itself."""
    own_ports = {"SERVER_PORT": str(free_port()), "RAFT_PORT": str(free_port())}
    return subprocess.run(
        [str(PROGRAM), "serve"],
        env={**node.environment(), **own_ports, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_sigterm_hands_leadership_over_and_exits_0(cluster: Cluster) -> None:
    nodes = cluster.form()
    leader = nodes[0]
    term = leader.term()
    with Writers(nodes) as writers:
        writers.wait_acknowledged(100)
        leader.terminate()
        assert leader.wait_stopped() == 0, leader.log()
        writers.wait_acknowledged(100)

    new = cluster.leader()
    assert new.term() == term + 1, "handed over in one election"
    cluster.wait_level()
    for node in cluster.running():
        assert missing(node, writers.acknowledged) == []
    leader.start().wait_ready()
    assert missing(leader, writers.acknowledged) == []


def test_sigterm_answers_what_was_asked_before(cluster: Cluster) -> None:
    (node,) = cluster.start("node1")
    connections = [node.connect() for _ in range(20)]
    for connection in connections:
        assert connection.request("GET", "/health").status == 200
    for number, connection in enumerate(connections):
        connection.send("POST", "/store", {"key": f"last{number}", "value": number})
    node.terminate()
    statuses = [connection.receive().status for connection in connections]
    for connection in connections:
        connection.close()
    assert node.wait_stopped() == 0
    assert set(statuses) <= {200, 503}, "done, or refused in words"

    node.start().wait_ready()
    for number, status in enumerate(statuses):
        assert (node.fetch(f"last{number}").status == 200) == (status == 200)


def test_sigint_ends_a_node_as_sigterm_does(cluster: Cluster) -> None:
    (node,) = cluster.start("node1")
    os.kill(node.pid, 2)
    assert node.wait_stopped() == 0, node.log()


def test_a_second_process_on_the_same_directory_is_refused(cluster: Cluster) -> None:
    (node,) = cluster.start("node1")
    second = serve(node)
    assert second.returncode not in {0, 1}, second
    assert str(node.data_dir) in second.stdout + second.stderr
    assert "Traceback" not in second.stderr
    assert node.store("first", "goes on").status == 200


def test_a_taken_port_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (node,) = cluster.start("node1")
    for name, port in (("SERVER_PORT", node.http_port), ("RAFT_PORT", node.raft_port)):
        second = serve(node, RAFT_VOL_DIR=str(tmp_path / name), RAFT_NODE_ID="node2", **{name: str(port)})
        assert second.returncode != 0
        assert str(port) in second.stdout + second.stderr
        assert "Traceback" not in second.stderr


def test_the_directory_of_another_node_is_refused(cluster: Cluster) -> None:
    (node,) = cluster.start("node1")
    node.stop()
    wrong = serve(node, RAFT_NODE_ID="node2")
    assert wrong.returncode not in {0, 1}, wrong
    assert "node1" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_newer_format_is_refused_and_left_alone(cluster: Cluster) -> None:
    (node,) = cluster.start("node1")
    node.stop()
    path = node.data_dir / "identity.json"
    identity = json.loads(path.read_text())
    assert identity["format_version"] >= 1
    identity["format_version"] += 1
    path.write_text(json.dumps(identity))
    before = path.read_bytes()

    newer = serve(node)

    assert newer.returncode not in {0, 1}, newer
    assert "Traceback" not in newer.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_PORT", "http"),
        ("RAFT_NODE_ID", "node 1"),
        ("RAFTKV_ELECTION_TIMEOUT_MS", "1"),
        ("RAFTKV_READ_CONSISTENCY", "eventual"),
        ("RAFTKV_SERVER_HOST", "0.0.0.0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_before_anything_starts(cluster: Cluster, name: str, value: str) -> None:
    node = cluster.add("node1")
    wrong = serve(node, **{name: value})
    assert wrong.returncode != 0
    said = (wrong.stdout + wrong.stderr).lower()
    setting = {"RAFTKV_SERVER_HOST": "advertise_server_address"}.get(name, name)
    assert setting.lower() in said.replace("\n", "") or setting.lower().removeprefix("raftkv_") in said
    assert not node.data_dir.exists()
