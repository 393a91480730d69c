"""A node in memory that obeys `NodePort`: one dict, a position, and a switch for each thing that can go wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from raftkv.errors import NotReady, RaftkvError
from raftkv.kv import Delete, DeleteResult, KeyValue, Put, PutResult
from raftkv.types import Consistency, WriteMode


@dataclasses.dataclass(frozen=True, slots=True)
class FakePosition:
    revision: int = 0
    applied_index: int = 0
    current_term: int = 3
    leader_node_id: str = "node1"
    leader_http_address: str = "127.0.0.1:2221"
    is_marked_stale: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class FakeOutcome:
    is_complete: bool = True
    progress: object = None


@dataclasses.dataclass(slots=True)
class FakeSettings:
    server_host: str = "127.0.0.1"
    server_port: int = 0
    write_mode: str = "forward"
    read_consistency: str = "local"
    max_key_bytes: int = 512
    max_value_bytes: int = 100_000
    max_header_bytes: int = 4096
    max_connections: int = 64
    idle_timeout_ms: int = 30_000
    body_timeout_ms: int = 30_000
    shutdown_timeout_ms: int = 2_000
    is_profiling: bool = True


class FakeNode:
    """Answers at once, unless `hold` is set: then writes and confirmed reads wait in `held` for `release`."""

    def __init__(self) -> None:
        self.data: dict[bytes, KeyValue] = {}
        self.metrics_registry = CollectorRegistry()
        self.is_ready = True
        self.hold = False
        self.held: list[Callable[[], None]] = []
        self.error: Any = None  # what every request gets instead of an answer
        self.write_error: Any = None
        self.join_outcome = FakeOutcome()
        self.members = ["node1"]
        self.calls: list[tuple[Any, ...]] = []
        self.modes: list[WriteMode] = []
        self._position = FakePosition()

    def position(self) -> FakePosition:
        return self._position

    def move(self, **changes: Any) -> None:
        self._position = dataclasses.replace(self._position, **changes)

    def release(self) -> None:
        held, self.held = self.held, []
        for answer in held:
            answer()

    def local_value(self, key: bytes) -> bytes | None:
        if self.error is not None:
            raise self.error
        found = self.data.get(key)
        return None if found is None else found.value

    def read(self, key: bytes, consistency: Consistency, done: Callable[[Any], None]) -> None:
        self.calls.append(("read", key, consistency))
        self._answer(lambda: done(self.error or self.data.get(key)))

    def submit(self, command: Put | Delete, done: Callable[[Any], None], mode: WriteMode) -> None:
        self.modes.append(mode)
        self._answer(lambda: done(self.error or self.write_error or self._apply(command)))

    def _answer(self, answer: Callable[[], None]) -> None:
        if self.hold:
            self.held.append(answer)
        else:
            answer()

    def _apply(self, command: Put | Delete) -> PutResult | DeleteResult:
        revision = self._position.revision + 1
        if isinstance(command, Put):
            before = self.data.get(command.key)
            created = before.create_revision if before else revision
            version = before.version + 1 if before else 1
            self.data[command.key] = KeyValue(command.key, command.value, created, revision, version)
            self.move(revision=revision, applied_index=self._position.applied_index + 1)
            return PutResult(revision, created, version)
        deleted = self.data.pop(command.key, None) is not None
        if deleted:
            self.move(revision=revision)
        self.move(applied_index=self._position.applied_index + 1)
        return DeleteResult(self._position.revision, deleted)

    async def join(self, node_id: str, raft_address: str) -> FakeOutcome:
        self.calls.append(("join", node_id, raft_address))
        self._raise()
        return self.join_outcome

    async def remove(self, node_id: str) -> None:
        self.calls.append(("remove", node_id))
        self._raise()

    async def transfer_leadership(self, node_id: str | None) -> None:
        self.calls.append(("transfer", node_id))
        self._raise()

    def stats(self) -> dict[str, Any]:
        members = [{"id": name, "suffrage": "Voter"} for name in self.members]
        term = self._position.current_term
        return {"node_id": "node1", "state": "leader", "term": term, "latest_configuration": members}

    def _raise(self) -> None:
        if isinstance(self.error, RaftkvError):
            raise self.error


NOT_READY = NotReady("the node has not caught up yet")
