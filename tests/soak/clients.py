"""Clients that write, delete and read a few keys through all nodes, and write down what they saw.

Every value is written once in a run, so a read tells which write it saw. What becomes of a call decides where it goes:

| answer                                    | what is known        | goes to                              |
| ---                                       | ---                  | ---                                  |
| 200; a read's 404 `key_not_found`         | it is done           | the history                          |
| outcome `rejected`                        | surely not applied   | a put's value: must never be seen    |
| nothing was listening                     | never sent           | the same                             |
| outcome `unknown`, time-out, broken off   | nothing              | a write: the history, open for ever  |

The history holds a value's name. That what is stored is the whole value that goes by this name is checked at once.
Local reads may be old and are no part of the history; but what they show was written, and never grows older on a node.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from raftkv.sim.history import FOREVER, Kind, Operation
from tests.e2e.curl import Answer, Connection, NoAnswer
from tests.e2e.node import Node
from tests.soak.revisions import Sight, What

KEYS = tuple(f"soak-{number:02}" for number in range(16))
VALUE_SIZES = (30, 100, 1000, 4000)
ANSWER_TIMEOUT_S = 4.0
"""Longer than the nodes' request_timeout_ms, so that silence means that the node itself is stuck or dead."""
SHUN_S = 1.0
"""How long a client leaves a node alone that did not answer; else all of them would soon wait for a paused one."""
THINK_S = 0.03
LOCAL = "local"
LINEARIZABLE = "linearizable"
CONSISTENCIES = (LINEARIZABLE, LINEARIZABLE, LINEARIZABLE, "lease", "lease", LOCAL)
WRITE_QUERIES = ("", "", "", "", "", "", "", "?write_mode=reject")


def value_named(name: str) -> str:
    """What is stored for a name like `client3-17-1000`, which ends in the length."""
    size = int(name.rpartition("-")[2])
    return (f"{name} " * (size // len(name) + 1))[: max(size, len(name) + 1)]


def name_of(value: Any) -> str:
    """Raises ValueError when it is no value that a client sent."""
    name = str(value).partition(" ")[0]
    if not name.rpartition("-")[2].isdigit() or value != value_named(name):
        raise ValueError(f"a value that nobody wrote: {value!r:.200}")
    return name


@dataclasses.dataclass(slots=True)
class Record:
    """What one client, or all of them, saw."""

    operations: list[Operation] = dataclasses.field(default_factory=list)
    refused: set[bytes] = dataclasses.field(default_factory=set)
    """Values of puts that surely were not applied."""
    local_values: set[bytes] = dataclasses.field(default_factory=set)
    """What local reads found."""
    sights: list[Sight] = dataclasses.field(default_factory=list)
    refused_count: int = 0
    unsent_count: int = 0
    unanswered_read_count: int = 0
    found_count: int = 0
    """Reads that found a value."""
    open_count: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def add(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.found_count += operation.kind is Kind.GET and operation.value is not None
        self.open_count += operation.is_open

    def merge(self, other: Record) -> None:
        for field in dataclasses.fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine | others if isinstance(mine, set) else mine + others)


class Client:
    """One of them; `run` is for a thread of its own. `now_s` is the clock of the whole run."""

    def __init__(self, name: str, nodes: Sequence[Node], now_s: Callable[[], float], seed: object) -> None:
        self.name = name
        self.record = Record()
        self._now_s = now_s
        self._random = random.Random(f"{seed}/{name}")
        self._connections = {node.node_id: node.connect(ANSWER_TIMEOUT_S) for node in nodes}
        self._shunned_until_s = dict.fromkeys(self._connections, 0.0)
        self._written_count = 0

    def run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.wait(self._random.uniform(0, 2 * THINK_S)):
                self._work()
        finally:
            self.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _work(self) -> None:
        key, choice = self._random.choice(KEYS), self._random.random()
        node_id = self._pick_node()
        if choice < 0.5:
            self.read(node_id, key, self._random.choice(CONSISTENCIES))
        elif choice < 0.95:
            self._put(node_id, key)
        else:
            self._delete(node_id, key)

    def _pick_node(self) -> str:
        now_s = time.monotonic()
        willing = [node_id for node_id, until_s in self._shunned_until_s.items() if until_s <= now_s]
        return self._random.choice(willing or list(self._connections))

    def read(self, node_id: str, key: str, consistency: str = LINEARIZABLE) -> bool:
        """Whether there was an answer."""
        call_s = self._now_s()
        answer = self._ask(node_id, "GET", f"/store/{key}?consistency={consistency}")
        return_s = self._now_s()
        if isinstance(answer, NoAnswer) or not (answer.status == 200 or answer.json["code"] == "key_not_found"):
            self.record.unanswered_read_count += 1
            return False
        found = None
        if answer.status == 200:
            try:
                found = name_of(answer.json["data"]["value"]).encode()
            except ValueError as error:
                self.record.problems.append(f"{node_id}, {key}: {error}")
                return False
        if consistency == LOCAL:
            self.record.local_values |= {found} if found else set()
            if not answer.is_marked_stale:
                self._see(What.LOCAL_READ, node_id, call_s, return_s, answer)
        else:
            self.record.add(Operation(self.name, Kind.GET, key.encode(), found, call_s, return_s))
            self._see(What.FRESH_READ, node_id, call_s, return_s, answer)
        return True

    def _put(self, node_id: str, key: str) -> None:
        self._written_count += 1
        name = f"{self.name}-{self._written_count}-{self._random.choice(VALUE_SIZES)}"
        body = {"key": key, "value": value_named(name)}
        self._write(node_id, "POST", "/store" + self._random.choice(WRITE_QUERIES), body, Kind.PUT, key, name.encode())

    def _delete(self, node_id: str, key: str) -> None:
        self._write(node_id, "DELETE", f"/store/{key}", None, Kind.DELETE, key, None)

    def _write(
        self, node_id: str, method: str, path: str, body: object, kind: Kind, key: str, value: bytes | None
    ) -> None:
        call_s = self._now_s()
        answer = self._ask(node_id, method, path, body)
        return_s = self._now_s()
        is_unsent = isinstance(answer, NoAnswer) and isinstance(answer.__cause__, ConnectionRefusedError)
        is_refused = isinstance(answer, Answer) and answer.outcome == "rejected"
        if is_unsent or is_refused:
            self.record.unsent_count += is_unsent
            self.record.refused_count += is_refused
            self.record.refused |= {value} if value else set()
            return
        if isinstance(answer, Answer) and answer.status == 200:
            self._see(What.PUT if kind is Kind.PUT else What.DELETE, node_id, call_s, return_s, answer)
        else:
            return_s = FOREVER
        self.record.add(Operation(self.name, kind, key.encode(), value, call_s, return_s))

    def _see(self, what: What, node_id: str, call_s: float, return_s: float, answer: Answer) -> None:
        revision = int(answer.headers["x-raftkv-revision"])
        self.record.sights.append(Sight(what, node_id, call_s, return_s, revision))

    def _ask(self, node_id: str, method: str, path: str, body: object = None) -> Answer | NoAnswer:
        connection: Connection = self._connections[node_id]
        try:
            return connection.request(method, path, body)
        except NoAnswer as no_answer:
            self._shunned_until_s[node_id] = time.monotonic() + SHUN_S
            return no_answer
