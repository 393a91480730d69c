"""Clients that write while the power is cut, each its own keys of a ledger, and note what they are told."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from tests.e2e.curl import Answer, Connection, NoAnswer
from tests.e2e.node import Node
from tests.e2e.waiting import eventually
from tests.power.ledger import Key, Ledger

_PAUSE_S = 0.01


class Load:
    """All clients of some stores: one thread for every client of every ledger, until `stop`.

    A client goes through its keys in turn, so that a write is seldom covered by a later one before somebody looks.
    Some keys are read instead, linearizably: what was seen once must stay as well.
    """

    def __init__(
        self, stores: Sequence[tuple[Sequence[Node], Ledger]], dice: random.Random, problems: list[str]
    ) -> None:
        """Each store is reached by any of its nodes. What a read shows to be wrong is added to `problems`."""
        self._ledgers = [ledger for _, ledger in stores]
        self._before_count = self._total()
        self._stopping = threading.Event()
        self._problems = problems
        self._threads = [
            threading.Thread(
                target=self._work, args=(list(nodes), ledger, client, random.Random(dice.random())), daemon=True
            )
            for nodes, ledger in stores
            for client in range(len(ledger.keys_of_client))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged_count(self) -> int:
        return self._total() - self._before_count

    def wait_acknowledged(self, count: int) -> None:
        """Until `count` more writes than now are acknowledged."""
        target = self._total() + count
        eventually(lambda: self._total() >= target, f"{count} more writes acknowledged", 60)

    def _total(self) -> int:
        return sum(ledger.acknowledged_count for ledger in self._ledgers)

    def _work(self, nodes: list[Node], ledger: Ledger, client: int, dice: random.Random) -> None:
        keys = ledger.keys_of_client[client]
        start = dice.randrange(len(keys))
        dice.shuffle(nodes)
        with ExitStack() as stack:
            connections = itertools.cycle([stack.enter_context(node.connect()) for node in nodes])
            connection = next(connections)
            for key in itertools.cycle([*keys[start:], *keys[:start]]):
                if self._stopping.is_set():
                    break
                if key.in_doubt:
                    self._stopping.wait(_PAUSE_S / 10)  # when all are, do not spin
                    continue
                if not self._use(connection, ledger, key, is_reading=dice.random() < 0.05):
                    connection = next(connections)
                    self._stopping.wait(_PAUSE_S)

    def _use(self, connection: Connection, ledger: Ledger, key: Key, *, is_reading: bool) -> bool:
        if is_reading:
            return self._read(connection, key)
        value = key.send()
        try:
            if value is None:
                answer = connection.request("DELETE", f"/store/{key.name}")
            else:
                answer = connection.request("POST", "/store", {"key": key.name, "value": value})
        except NoAnswer as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                key.reject()
            return False
        if answer.status == 200:
            key.acknowledge()
            ledger.note(int(answer.headers["x-raftkv-revision"]))
        elif answer.outcome == "rejected":
            key.reject()
        return answer.status == 200

    def _read(self, connection: Connection, key: Key) -> bool:
        try:
            answer = connection.request("GET", f"/store/{key.name}?consistency=linearizable")
        except NoAnswer:
            return False
        if answer.status not in {200, 404}:
            return False
        key.is_changed = True
        if problem := key.look(value_in(answer)):
            self._problems.append(problem)
        return True


def value_in(answer: Answer) -> str | None:
    """Of a successful answer to GET /store/…, or 404."""
    return str(answer.data["value"]) if answer.status == 200 else None
