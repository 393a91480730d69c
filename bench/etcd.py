"""Three etcd processes with Debian's default settings, except a quota that does not end the run."""

from __future__ import annotations

import asyncio
import json
import random
import string
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench import grpc, h2, h2load
from bench.processes import BenchError, Child, free_ports, wait_until
from bench.sample import Sample

VALUE_SIZE_BYTES = 128
_QUOTA_BYTES = 8 << 30


def key(number: int) -> bytes:
    """The same ten bytes that the Lua scripts send to raftkv."""
    return b"k%09d" % number


class EtcdCluster:
    name = "etcd"

    def __init__(self, directory: Path, node_count: int = 3) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        ports = free_ports(2 * node_count)
        self.client_ports, self._peer_ports = ports[:node_count], ports[node_count:]
        self._preload: Path | None = None
        self._noise = "".join(random.choices(string.ascii_letters + string.digits, k=1 << 16)).encode()
        self.children = [self._start(number) for number in range(node_count)]
        try:
            wait_until(lambda: self._leader() is not None, "etcd has a leader")
        except BaseException:
            self.stop()
            raise

    def _start(self, number: int) -> Child:
        client = f"http://127.0.0.1:{self.client_ports[number]}"
        peer = f"http://127.0.0.1:{self._peer_ports[number]}"
        argv = [
            "etcd",
            f"--name=etcd{number}",
            f"--data-dir={self._directory / f'etcd{number}'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            "--initial-cluster=" + ",".join(f"etcd{n}=http://127.0.0.1:{p}" for n, p in enumerate(self._peer_ports)),
            f"--quota-backend-bytes={_QUOTA_BYTES}",
            "--log-level=warn",
            "--logger=zap",
        ]
        return Child(f"etcd{number}", argv, self._directory / f"etcd{number}.log")

    def stop(self) -> None:
        for child in self.children:
            child.stop()

    @staticmethod
    def _ask(port: int, path: str, question: dict[str, object]) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/{path}", data=json.dumps(question).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _status(self, port: int) -> dict[str, str] | None:
        """Member id, leader and revision as this member sees them; None when it does not answer."""
        try:
            facts = self._ask(port, "maintenance/status", {})
        except (OSError, urllib.error.URLError):
            return None
        header = facts["header"]
        return {"id": header["member_id"], "leader": facts.get("leader", "0"), "revision": header.get("revision", "0")}

    def _leader(self) -> int | None:
        for port in self.client_ports:
            status = self._status(port)
            if status and status["id"] == status["leader"]:
                return port
        return None

    def leader_port(self) -> int:
        port = self._leader()
        if port is None:
            raise BenchError("etcd has lost its leader")
        return port

    def revision(self) -> int:
        status = self._status(self.leader_port())
        return int(status["revision"]) if status else 0

    def present_key_count(self) -> int:
        everything = {"key": "AA==", "range_end": "AA==", "count_only": True}
        return int(self._ask(self.leader_port(), "kv/range", everything).get("count", 0))

    def fill(self, key_count: int) -> None:
        """Every key once, 100 to a transaction."""
        numbers = iter(range(0, key_count, 100))

        def next_body() -> bytes | None:
            first = next(numbers, None)
            if first is None:
                return None
            return grpc.put_many((key(n), self._value()) for n in range(first, min(first + 100, key_count)))

        asyncio.run(h2.call_all("127.0.0.1", self.leader_port(), grpc.TXN_PATH, next_body, 4))
        if self.revision() < key_count // 100:
            raise BenchError("etcd did not take the keys")

    def _value(self) -> bytes:
        at = random.randrange(len(self._noise) - VALUE_SIZE_BYTES)
        return self._noise[at : at + VALUE_SIZE_BYTES]

    def _load(self, path: str, body: bytes, key_count: int, connection_count: int, duration_s: int) -> Sample:
        """`body` holds the key of number 0, in whose place random ones are sent."""
        if self._preload is None:
            self._preload = h2load.build_preload(self._directory)
        keys = h2load.RandomKeys(self._preload, body.index(key(0)) + 1, key_count)
        url = f"http://127.0.0.1:{self.leader_port()}{path}"
        return h2load.run(url, body, keys, connection_count, duration_s, self._directory)

    def writes(self, connection_count: int, duration_s: int, key_count: int) -> Sample:
        """Puts of random keys through the leader; revision and count of keys prove that they were applied."""
        before = self.revision()
        sample = self._load(grpc.PUT_PATH, grpc.put(key(0), self._value()), key_count, connection_count, duration_s)
        if self.revision() - before < sample.requests_per_s * duration_s:
            raise BenchError("etcd answered more puts than it applied")
        if self.present_key_count() < min(self.revision(), key_count) // 2:  # chance leaves 63 % at the least
            raise BenchError("etcd's keys were not random")
        return sample

    def reads(self, connection_count: int, duration_s: int, key_count: int, is_linearizable: bool) -> Sample:
        """Gets of random keys, all of which exist, from the leader."""
        body = grpc.get(key(0), is_serializable=not is_linearizable)
        return self._load(grpc.RANGE_PATH, body, key_count, connection_count, duration_s)
