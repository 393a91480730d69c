"""`raftkv dev`: a whole cluster by one command, stopped whole however `dev` ends."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from raftkv.client import Client
from tests.cli.processes import free_ports, interrupt, is_running, raftkv_process, read_until


def start_words(tmp_path: Path) -> tuple[str, ...]:
    base_port, base_raft_port = free_ports(2)
    return (
        "dev",
        "--data-dir",
        str(tmp_path / "data"),
        "--base-port",
        str(base_port),
        "--base-raft-port",
        str(base_raft_port),
    )


def servers_of(lines: list[str]) -> str:
    found = [line.partition("RAFTKV_SERVER=")[2] for line in lines if "RAFTKV_SERVER=" in line]
    assert found, lines
    return found[0]


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def test_three_nodes_serve_as_one_and_keep_their_data(tmp_path: Path) -> None:
    words = start_words(tmp_path)
    for run in (1, 2):
        with raftkv_process(*words, cwd=tmp_path) as process:
            lines = read_until(process.stdout, lambda line: "Ctrl-C stops everything" in line)
            servers = servers_of(lines)
            nodes = children_of(process)
            with Client(servers) as client:
                members = client.members()
                assert [member.suffrage for member in members] == ["voter"] * 3
                assert sum(member.is_leader for member in members) == 1
                if run == 2:
                    assert client.get("foo", "linearizable").value == "bar"
                client.put("foo", "bar")
                for server in servers.split(","):
                    with Client(server) as one:
                        assert one.get("foo", "linearizable").value == "bar"
            out, log = interrupt(process)
        assert process.returncode == 0, log
        assert "Stopped. The data is in" in out
        assert len(nodes) == 3
        assert not any(map(is_running, nodes))


def test_nodes_end_with_dev_even_if_it_is_killed(tmp_path: Path) -> None:
    with raftkv_process(*start_words(tmp_path), "--nodes", "1", cwd=tmp_path) as process:
        read_until(process.stdout, lambda line: "Ctrl-C stops everything" in line)
        (node,) = children_of(process)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while is_running(node) and time.monotonic() < deadline:
            time.sleep(0.02)  # the kernel tells nobody else when another process's child ends
        assert not is_running(node)


def test_a_cluster_of_another_size_is_refused(tmp_path: Path) -> None:
    words = start_words(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.json").write_text('[{"server_port": 1, "raft_port": 2}]')
    with raftkv_process(*words, cwd=tmp_path) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.search(r"--nodes: .* has a cluster of 1 nodes; use --nodes 1", log)
