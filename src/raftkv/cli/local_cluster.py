"""The processes behind `raftkv dev`: which ports, starting, joining, looking, stopping.

Each node is an ordinary `raftkv serve`. Nodes are in sessions of their own, so that a Ctrl-C at the terminal reaches
only `dev`, which then stops them in order; should `dev` itself be killed, the kernel tells them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from raftkv.client import Client
from raftkv.errors import SettingsError, Unavailable
from raftkv.runtime import CONFIG_ENVIRONMENT, SETTINGS

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 12.0
LOOK_TIMEOUT_SECONDS = 0.5
PLAN_NAME = "dev.json"
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(slots=True)
class LocalNode:
    """One node; `process` is None until it is started."""

    node_id: str
    server_port: int
    raft_port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def server_address(self) -> str:
        return f"{HOST}:{self.server_port}"

    @property
    def raft_address(self) -> str:
        return f"{HOST}:{self.raft_port}"

    @property
    def log_file(self) -> Path:
        return self.directory.with_suffix(".log")

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0


class NodeView(NamedTuple):
    """What a node says of itself, or what its process tells when it does not answer."""

    node_id: str
    server_address: str
    raft_address: str
    pid: int
    state: str
    term: int | None = None
    commit: int | None = None
    applied: int | None = None


class LocalCluster:
    """Made by `plan`; `stop` must be called whatever `start` did."""

    def __init__(self, directory: Path, nodes: list[LocalNode]) -> None:
        self.directory = directory
        self.nodes = nodes
        self._http = httpx.Client(timeout=LOOK_TIMEOUT_SECONDS, trust_env=False)

    @classmethod
    def plan(cls, directory: Path, count: int, base_port: int, base_raft_port: int) -> LocalCluster:
        """Choose ports, or take those that the directory's nodes know each other by. Raises SettingsError."""
        plan_file = directory / PLAN_NAME
        if plan_file.exists():
            ports = [(int(row["server_port"]), int(row["raft_port"])) for row in json.loads(plan_file.read_text())]
            if len(ports) != count:
                raise SettingsError(
                    "--nodes", f"{directory} has a cluster of {len(ports)} nodes; use --nodes {len(ports)}"
                )
            for port in (port for pair in ports for port in pair):
                if not _is_free(port):
                    raise SettingsError("--data-dir", f"port {port}, which its nodes know each other by, is taken")
        else:
            server_ports = _free_ports(base_port, count, taken=set())
            ports = list(zip(server_ports, _free_ports(base_raft_port, count, taken=set(server_ports)), strict=True))
            rows = [{"server_port": server_port, "raft_port": raft_port} for server_port, raft_port in ports]
            plan_file.write_text(json.dumps(rows) + "\n")
        return cls(
            directory.absolute(),
            [LocalNode(f"node{n}", *pair, directory.absolute() / f"node{n}") for n, pair in enumerate(ports, start=1)],
        )

    def command(self, node: LocalNode) -> list[str]:
        return [
            sys.executable, "-m", "raftkv", "serve", "--node-id", node.node_id, "--data-dir", str(node.directory),
            "--server-port", str(node.server_port), "--raft-port", str(node.raft_port),
        ]  # fmt: skip

    def serve_line(self, node: LocalNode) -> str:
        """The arguments with which a person starts that node again."""
        return shlex.join(self.command(node)[3:])

    def start(self, interrupted: threading.Event) -> None:
        """Start every node, wait until each serves, and join them; raises Unavailable with the reason."""
        for node in self.nodes:
            with node.log_file.open("ab") as log:
                node.process = subprocess.Popen(
                    self.command(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env=_child_environment(), preexec_fn=_die_with_parent,  # noqa: PLW1509  # one thread at this time
                )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        for node in self.nodes:
            while not interrupted.is_set() and not self._is_ready(node):
                if time.monotonic() > deadline:
                    raise Unavailable(f"{node.node_id} was not ready in time; {_last_lines(node)}")
                interrupted.wait(0.05)
        if not interrupted.is_set():
            with Client(self.nodes[0].server_address, timeout_seconds=START_TIMEOUT_SECONDS) as client:
                for node in self.nodes[1:]:
                    client.join(node.node_id, node.raft_address)

    def view(self) -> list[NodeView]:
        return [self._view(node) for node in self.nodes]

    def stop(self) -> None:
        """Ask all nodes to stop, wait, and kill what is left."""
        running = [node.process for node in self.nodes if node.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._http.close()

    def _is_ready(self, node: LocalNode) -> bool:
        if node.process is not None and node.process.poll() is not None:
            raise Unavailable(f"{node.node_id} ended with exit code {node.process.returncode}; {_last_lines(node)}")
        try:
            return self._http.get(f"http://{node.server_address}/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _view(self, node: LocalNode) -> NodeView:
        place = (node.node_id, node.server_address, node.raft_address, node.pid)
        try:
            stats: dict[str, Any] = self._http.get(f"http://{node.server_address}/raft/stats").json()["data"]
            numbers = (int(stats["term"]), int(stats["commit_index"]), int(stats["applied_index"]))
            return NodeView(*place, str(stats["state"]).lower(), *numbers)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            code = node.process.poll() if node.process is not None else None
            return NodeView(*place, "no answer" if code is None else f"ended with exit code {code}")


def _free_ports(first: int, count: int, taken: set[int]) -> list[int]:
    found: list[int] = []
    for port in range(first, 65536):
        if port not in taken and _is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise SettingsError("--base-port", f"fewer than {count} ports from {first} on are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _child_environment() -> dict[str, str]:
    """Ours without the settings of a node: a SERVER_PORT of the shell's must not reach all of them."""
    ours = {CONFIG_ENVIRONMENT} | {spec.environment for spec in SETTINGS.values()}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _die_with_parent() -> None:
    """In the child, before it becomes a node: ask the kernel for a SIGTERM when the parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _last_lines(node: LocalNode) -> str:
    try:
        lines = node.log_file.read_text(errors="replace").strip().splitlines()[-5:]
    except OSError:
        lines = []
    return "it said:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it said nothing"
