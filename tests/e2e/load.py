"""Clients at work beside a test: what was acknowledged, what was refused, what nobody knows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from tests.e2e.curl import Connection, NoAnswer
from tests.e2e.node import Node
from tests.e2e.waiting import eventually

WORKER_COUNT = 8


def value_of(key: str, size: int = 100) -> str:
    """What the tests store under a key when any value will do; `size` characters, different for each key."""
    return (key * (size // len(key) + 1))[:size]


def store_all(node: Node, keys: Sequence[str], size: int = 100) -> None:
    """Store each key once through `node`; every one must be acknowledged."""

    def work(part: Sequence[str]) -> None:
        with node.connect() as connection:
            for key in part:
                answer = connection.request("POST", "/store", {"key": key, "value": value_of(key, size)})
                assert answer.status == 200, answer

    with ThreadPoolExecutor(WORKER_COUNT) as pool:
        list(pool.map(work, [keys[start::WORKER_COUNT] for start in range(WORKER_COUNT)]))


def missing(node: Node, keys: Iterable[str], size: int = 100) -> list[str]:
    """The keys that `node`'s own state does not have with their value."""
    lost = []
    with node.connect() as connection:
        for key in keys:
            answer = connection.request("GET", f"/store/{key}")
            if answer.status != 200 or answer.json["data"]["value"] != value_of(key, size):
                lost.append(key)
    return lost


class Writers:
    """Workers that store fresh keys through all nodes in turn until stopped.

    `acknowledged` were answered 200; `rejected` were answered as surely not applied; the rest is unknown.
    """

    def __init__(self, nodes: Sequence[Node], prefix: str = "w", worker_count: int = WORKER_COUNT) -> None:
        self.acknowledged: list[str] = []
        self.rejected: list[str] = []
        self.unknown: list[str] = []
        self._nodes = nodes
        self._prefix = prefix
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(worker_count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_acknowledged(self, count: int, timeout_s: float = 20.0) -> None:
        """Until `count` more writes than now are acknowledged."""
        target = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= target, f"{count} more writes acknowledged", timeout_s)

    def _work(self, worker: int) -> None:
        start = worker % len(self._nodes)
        in_turn = [*self._nodes[start:], *self._nodes[:start]]
        with ExitStack() as stack:
            connections = itertools.cycle([stack.enter_context(node.connect()) for node in in_turn])
            connection = next(connections)
            for number in itertools.count():
                if self._stopping.is_set():
                    break
                if not self._store(connection, f"{self._prefix}-{worker}-{number}"):
                    connection = next(connections)
                    self._stopping.wait(0.01)  # do not spin against a node that is down

    def _store(self, connection: Connection, key: str) -> bool:
        try:
            answer = connection.request("POST", "/store", {"key": key, "value": value_of(key)})
        except NoAnswer:
            self.unknown.append(key)
            return False
        if answer.status == 200:
            self.acknowledged.append(key)
        elif answer.outcome == "rejected":
            self.rejected.append(key)
        else:
            self.unknown.append(key)
        return answer.status == 200
