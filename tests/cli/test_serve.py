"""`raftkv serve`: its flags are the table of settings, and a real process serves and stops as told."""

from __future__ import annotations

import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.client import Client
from raftkv.runtime import SETTINGS
from tests.cli.command import Command
from tests.cli.processes import free_ports, interrupt, raftkv_process, read_until


def test_help_shows_every_setting_with_its_environment_name(raftkv: Command) -> None:
    text = raftkv("serve", "--help").out
    for spec in SETTINGS.values():
        assert spec.flag in text
        assert spec.environment in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "raftkv: error: node_id: required; give it as --node-id or RAFT_NODE_ID (environment)"),
        (("--node-id", "a b", "--data-dir", "d"), "raftkv: error: --node-id: 'a b' is not a name"),
        (("--config", "missing.toml"), "raftkv: error: --config missing.toml: cannot be read"),
    ],
)
def test_wrong_settings_end_it_before_anything_is_made(
    raftkv: Command, words: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = raftkv("serve", *words)
    assert done.exit_code == 2
    assert done.err.startswith(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_serves_by_the_reference_environment_and_stops_cleanly(tmp_path: Path, number: int) -> None:
    server_port, raft_port = free_ports(2)
    environment = {"SERVER_PORT": str(server_port), "RAFT_PORT": str(raft_port)}
    environment |= {"RAFT_NODE_ID": "node1", "RAFT_VOL_DIR": "node_1_data"}
    for value in ("first", "second"):
        with raftkv_process("serve", cwd=tmp_path, **environment) as process:
            assert "listening" in read_until(process.stderr, lambda line: "listening" in line)[-1]
            with Client(f"127.0.0.1:{server_port}") as client:
                if value == "second":
                    assert client.get("foo").value == "first"
                client.put("foo", value)
            _, log = interrupt(process, number)
        assert process.returncode == 0, log


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    (raft_port,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ("serve", "--node-id", "n", "--data-dir", "d", "--server-port", port, "--raft-port", str(raft_port))
        with raftkv_process(*words, cwd=tmp_path) as process:
            _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "raftkv: error: " in log.splitlines()[-1]
    assert f"on 127.0.0.1 port {port} (settings server_host, server_port): Address already in use" in log


def test_a_raft_port_that_is_taken_is_named(tmp_path: Path) -> None:
    (server_port,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ("serve", "--node-id", "n", "--data-dir", "d", "--server-port", str(server_port), "--raft-port", port)
        with raftkv_process(*words, cwd=tmp_path) as process:
            _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"on 127.0.0.1 port {port} (settings raft_host, raft_port): Address already in use" in log


def test_a_directory_that_is_in_use_ends_with_the_storage_code(tmp_path: Path) -> None:
    ports = free_ports(4)
    words = ("serve", "--node-id", "n", "--data-dir", "d", "--server-port")
    with raftkv_process(*words, str(ports[0]), "--raft-port", str(ports[1]), cwd=tmp_path) as first:
        read_until(first.stderr, lambda line: "listening" in line)
        with raftkv_process(*words, str(ports[2]), "--raft-port", str(ports[3]), cwd=tmp_path) as second:
            _, log = second.communicate(timeout=60)
        assert second.returncode == 7
        assert f"in use by the process with pid {first.pid}" in log
        interrupt(first)


@pytest.mark.parametrize("place", ["file", "file/d", "x" * 300], ids=["a file", "below a file", "too long"])
def test_a_directory_that_cannot_be_made_is_named_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with raftkv_process("serve", "--node-id", "n", "--data-dir", place, cwd=tmp_path) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode == 7
    assert log.startswith(f"raftkv: error: cannot open the data directory {place}: ")
    assert len(log.splitlines()) == 1


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_directory_that_is_removed_under_a_node_ends_it(tmp_path: Path, is_made_again: bool) -> None:
    server_port, raft_port = map(str, free_ports(2))
    words = ("serve", "--node-id", "n", "--data-dir", "d", "--server-port", server_port, "--raft-port", raft_port)
    with raftkv_process(*words, cwd=tmp_path) as process:
        read_until(process.stderr, lambda line: "listening" in line)
        shutil.rmtree(tmp_path / "d")
        if is_made_again:
            (tmp_path / "d").mkdir()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 7
    assert log.splitlines()[-1].startswith("raftkv: error: the data directory d is gone: No such file or directory")
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["typer", "uvloop", "raftkv.storage"])
def test_a_signal_while_modules_are_loaded_stops_it_in_order(tmp_path: Path, module: str, number: int) -> None:
    server_port, raft_port = map(str, free_ports(2))
    words = ("serve", "--node-id", "n", "--data-dir", "d", "--server-port", server_port, "--raft-port", raft_port)
    with raftkv_process(*words, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1") as process:
        read_until(process.stderr, lambda line: line.endswith(f" {module}\n"))
        _, log = interrupt(process, number)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert not (tmp_path / "d").exists()


def test_too_few_descriptors_are_told_before_anything_is_made(tmp_path: Path) -> None:
    few = 12
    done = subprocess.run(
        [sys.executable, "-m", "raftkv", "serve", "--node-id", "n", "--data-dir", "d"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "raftkv: error: the limit of open files is 12, a node needs at least 64 and one more for each HTTP "
        "connection: raise it (ulimit -n, LimitNOFILE)\n"
    )
    assert list(tmp_path.iterdir()) == []
