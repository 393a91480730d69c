"""What the API needs of a node, and nothing more.

The skins (HTTP now, gRPC later) are written against `NodePort`, so that they can be tested against a node
in memory and so that the runtime never imports them. Everything here is called on the event loop's thread.

Reads and writes of keys are callbacks, not coroutines: a coroutine and its task cost more than the whole
rest of a request. Turned down: futures with `add_done_callback`, which go through the loop once more for
each answer, where a batch can answer all its requests in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from raftkv.types import Consistency, WriteMode

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from raftkv.kv import Delete, Put


class PositionView(Protocol):
    """Where a node stands. A node hands out the same object until a field changes (see `NodePort.position`)."""

    @property
    def revision(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def current_term(self) -> int: ...
    @property
    def leader_node_id(self) -> str:
        """Empty while no leader is known."""
        ...

    @property
    def leader_http_address(self) -> str:
        """`host:port`, empty while no leader is known."""
        ...

    @property
    def is_marked_stale(self) -> bool:
        """True while local reads are served although no leader confirmed that this node has caught up."""
        ...


class KeyValueView(Protocol):
    """A key's newest value and its revisions."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def create_revision(self) -> int: ...
    @property
    def mod_revision(self) -> int: ...
    @property
    def version(self) -> int: ...


class WriteResultView(Protocol):
    """What every write answers: the revision that the store had right after it."""

    @property
    def revision(self) -> int: ...


class JoinOutcomeView(Protocol):
    """How far a join has come when the wait is over."""

    @property
    def is_complete(self) -> bool:
        """True once the node is a voter; then `progress` does not matter."""
        ...

    @property
    def progress(self) -> object:
        """How far the node is, for people and programs; JSON-ready."""
        ...


class NodePort(Protocol):
    """The node as the API sees it (`runtime.node.Node`, or a node in memory under test)."""

    @property
    def metrics_registry(self) -> CollectorRegistry: ...

    @property
    def is_ready(self) -> bool:
        """A leader is known and this node has applied what was committed when it started."""
        ...

    def position(self) -> PositionView:
        """The current position: the same object as the last time, by identity, when no field has changed.

        That lets the HTTP lane keep its rendered headers; it costs one call and one `is` for each answer.
        """
        ...

    def local_value(self, key: bytes) -> bytes | None:
        """This node's applied value, or None when the key has none. Raises `NotReady` (or `StorageError`)."""
        ...

    def read(self, key: bytes, consistency: Consistency, done: Callable[[Any], None]) -> None:
        """Call `done` once, perhaps before returning, with a `KeyValueView`, None (no such key) or a `RaftkvError`.

        Errors: `NoLeader`, `ReadTimeout`, `NotReady`, `Overloaded`, and `InvalidInput` for `lease` when lease
        reads are not enabled. Never raises.
        """
        ...

    def submit(self, command: Put | Delete, done: Callable[[Any], None], mode: WriteMode) -> None:
        """Call `done` once, perhaps before returning, with a `WriteResultView` or a `RaftkvError`.

        In modes `redirect` and `reject` a node that is not the leader answers `NotLeader`, with the leader's HTTP
        address, or `NoLeader`. Errors that leave the outcome open are `OutcomeUnknown`. Never raises.
        """
        ...

    async def join(self, node_id: str, raft_address: str) -> JoinOutcomeView:
        """Returns once the node is a voter or the join wait is over. Raises `MembershipRefused`, `Unavailable`, …"""
        ...

    async def remove(self, node_id: str) -> None:
        """Returns once the removal is committed; a node that is no member is already removed."""
        ...

    async def transfer_leadership(self, node_id: str | None) -> None:
        """Returns once another node leads; None lets the leader choose the most up-to-date voter."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """The fields of `GET /raft/stats`, JSON-ready."""
        ...


class HttpSettings(Protocol):
    """The settings that the HTTP interface reads; `runtime.settings.Settings` has them all."""

    @property
    def server_host(self) -> str: ...
    @property
    def server_port(self) -> int: ...
    @property
    def write_mode(self) -> str: ...
    @property
    def read_consistency(self) -> str: ...
    @property
    def max_key_bytes(self) -> int: ...
    @property
    def max_value_bytes(self) -> int: ...
    @property
    def max_header_bytes(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def idle_timeout_ms(self) -> int: ...
    @property
    def body_timeout_ms(self) -> int:
        """How long the header of a request may take to come in, and after it the body; and an answer to go out."""
        ...

    @property
    def shutdown_timeout_ms(self) -> int: ...
    @property
    def is_profiling(self) -> bool: ...
