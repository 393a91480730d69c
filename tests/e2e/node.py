"""One `raftkv serve` process: settings by environment as published, output in a file, signals by its id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.curl import Answer, Connection, curl
from tests.e2e.waiting import eventually
from tests.ports import free_port

PROGRAM = Path(sys.executable).with_name("raftkv")
_OURS = ("RAFT", "SERVER_PORT")  # what a developer's shell may have set and a test must not see


class Node:
    """Ports and directory are fixed for its life, so that it can be started again as itself.

    `settings` are further settings by name, in lower case (`election_timeout_ms=200`).
    """

    def __init__(self, node_id: str, directory: Path, **settings: object) -> None:
        self.node_id = node_id
        self.http_port, self.raft_port = free_port(), free_port()
        self.data_dir = directory / f"{node_id}_data"
        self.log_path = directory / f"{node_id}.log"
        self.settings = settings
        self.is_expected_to_run = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.http_port}"

    @property
    def raft_address(self) -> str:
        return f"localhost:{self.raft_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.node_id} was never started"
        return self._process.pid

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {
            **clean,
            "SERVER_PORT": str(self.http_port),
            "RAFT_NODE_ID": self.node_id,
            "RAFT_PORT": str(self.raft_port),
            "RAFT_VOL_DIR": str(self.data_dir),
            **{f"RAFTKV_{name.upper()}": str(value) for name, value in self.settings.items()},
        }

    def start(self) -> Node:
        """Start the process; it is not ready yet."""
        assert not self.is_running(), f"{self.node_id} runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), "serve"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.is_expected_to_run = True
        return self

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, timeout_s: float = 20.0) -> Node:
        def answers_ready() -> bool:
            if not self.is_running():
                raise RuntimeError(f"{self.node_id} ended by itself:\n{self.log()}")
            return self.get_raw("/ready").status == 200

        eventually(answers_ready, f"{self.node_id} is ready", timeout_s)
        return self

    def kill(self) -> None:
        """SIGKILL: as a power cut, but the operating system's caches survive."""
        self.is_expected_to_run = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.is_expected_to_run = False
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self, timeout_s: float = 20.0) -> int:
        """The exit status of a process that was told to end, or that should end by itself."""
        self.is_expected_to_run = False
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """A clean stop."""
        self.terminate()
        status = self.wait_stopped()
        assert status == 0, f"{self.node_id} ended with {status} after SIGTERM:\n{self.log()}"

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"{self.node_id} stands still")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self, line_count: int = 60) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-line_count:])

    # The interface, as published.

    def connect(self, timeout_s: float = 10.0) -> Connection:
        return Connection(self.address, timeout_s)

    def get_raw(self, path: str) -> Answer:
        return curl("GET", self.address, path, headers=(), timeout_s=5)

    def stats(self) -> dict[str, Any]:
        return dict(curl("GET", self.address, "/raft/stats").data)

    def store(self, key: str, value: object, query: str = "") -> Answer:
        return curl("POST", self.address, "/store" + query, {"key": key, "value": value})

    def fetch(self, key: str, query: str = "") -> Answer:
        return curl("GET", self.address, f"/store/{key}{query}")

    def fetch_linearizable(self, key: str) -> Answer:
        return self.fetch(key, "?consistency=linearizable")

    def delete(self, key: str) -> Answer:
        return curl("DELETE", self.address, f"/store/{key}")

    def join(self, other: Node, node_id: str = "") -> Answer:
        """Ask this node to take `other` in."""
        return self.join_address(node_id or other.node_id, other.raft_address)

    def join_address(self, node_id: str, raft_address: str) -> Answer:
        body = {"node_id": node_id, "raft_address": raft_address}
        return curl("POST", self.address, "/raft/join", body, timeout_s=40)

    def remove(self, node_id: str) -> Answer:
        return curl("POST", self.address, "/raft/remove", {"node_id": node_id}, timeout_s=20)

    # What the status says.

    def is_leader(self) -> bool:
        return self.is_running() and str(self.stats()["state"]).lower() == "leader"

    def term(self) -> int:
        return int(self.stats()["term"])

    def applied_index(self) -> int:
        return int(self.stats()["applied_index"])

    def members(self) -> dict[str, str]:
        """Name to suffrage ("voter", "nonvoter") of every member in this node's latest configuration."""
        return {str(m["id"]): str(m["suffrage"]).lower() for m in self.stats()["latest_configuration"]}
