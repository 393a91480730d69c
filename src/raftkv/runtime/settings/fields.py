"""Every knob of a node, in one table: `Settings`.

A field says once what it is, in which unit, between which ends, by which environment name, and what happens
without it. Flags, environment names, TOML keys, `--help` and `docs/reference/settings.md` are derived from it,
so they cannot disagree. `loading` gathers values from those sources; a value that breaks a range or
a rule between settings is refused here, by name, before anything is started.

Invariant: a `Settings` object that exists is valid. Turned down: a settings library. It would read the sources,
which is the short half, and not say which source a wrong value came from, which is the half that users need.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from raftkv.errors import SettingsError
from raftkv.runtime.addresses import is_loopback, join_address
from raftkv.runtime.settings.rules import broken_rules
from raftkv.runtime.settings.schema import (
    InitialMember,
    LogFormat,
    LogLevel,
    Profiling,
    SettingSpec,
    Unit,
    check_value,
    setting,
)
from raftkv.types import Consistency, WriteMode

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DAY_MS = 24 * 3600 * 1000

_NODE, _CLUSTER, _REQUESTS = "Node", "Cluster", "Reads and writes"
_TIMING, _LIMITS, _STORAGE, _SAFETY = "Timing", "Limits", "Storage", "Security and diagnosis"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Valid settings of one node. Constructing it raises `SettingsError` with the name of what is wrong."""

    node_id: str = setting(
        Unit.TEXT,
        None,
        "The name of this node: letters, digits, '.', '_' and '-', 1 to 64 of them. Unique in "
        "its cluster and kept for the life of its data directory.",
        env="RAFT_NODE_ID",
        group=_NODE,
        required=True,
    )
    data_dir: Path = setting(
        Unit.PATH,
        None,
        "The directory of this node's data; made when missing, locked while the node runs.",
        env="RAFT_VOL_DIR",
        group=_NODE,
        required=True,
    )
    server_host: str = setting(
        Unit.TEXT, "127.0.0.1", "The address that the HTTP interface listens on; 0.0.0.0 or :: for all.", group=_NODE
    )
    server_port: int = setting(
        Unit.PORT,
        2221,
        "The port of the HTTP interface.",
        env="SERVER_PORT",
        between=(0, 65535),
        zero_is="any free port, and needs advertise_server_address",
        group=_NODE,
    )
    raft_host: str = setting(
        Unit.TEXT, "127.0.0.1", "The address that the other nodes' connections are taken on.", group=_NODE
    )
    raft_port: int = setting(
        Unit.PORT,
        1111,
        "The port for the other nodes.",
        env="RAFT_PORT",
        between=(0, 65535),
        zero_is="any free port, and needs advertise_raft_address or initial_cluster",
        group=_NODE,
    )
    advertise_server_address: str = setting(
        Unit.ADDRESS, "", "Where clients reach this node; empty means server_host:server_port.", group=_NODE
    )
    advertise_raft_address: str = setting(
        Unit.ADDRESS,
        "",
        "Where the other nodes reach this node; empty means its entry in initial_cluster, or else raft_host:raft_port.",
        group=_NODE,
    )

    initial_cluster: tuple[InitialMember, ...] = setting(
        Unit.MEMBERS,
        (),
        "The members of a new cluster by their Raft addresses, the same text on every node. The "
        "first one listed bootstraps the cluster, the others join it. Ignored once the node has data.",
        group=_CLUSTER,
    )
    join: tuple[str, ...] = setting(
        Unit.ADDRESSES,
        (),
        "Raft addresses of members to join through, tried in turn until one works. Ignored once "
        "the node belongs to a cluster.",
        group=_CLUSTER,
    )
    join_timeout_ms: int = setting(
        Unit.MILLISECONDS,
        20_000,
        "How long a join waits for the new node to become a voter before it answers 202 "
        "with its progress; the join itself goes on.",
        between=(100, DAY_MS),
        group=_CLUSTER,
    )

    write_mode: WriteMode = setting(
        Unit.CHOICE,
        WriteMode.FORWARD,
        "What a node that does not lead does with a write: forward it to the leader, "
        "redirect the client (307), or reject it (422).",
        choices=WriteMode,
        group=_REQUESTS,
    )
    read_consistency: Consistency = setting(
        Unit.CHOICE,
        Consistency.LOCAL,
        "What GET /store/… promises unless the request says otherwise.",
        choices=Consistency,
        group=_REQUESTS,
    )
    lease_reads: bool = setting(
        Unit.FLAG,
        False,
        "Allow reads by the leader's lease. They are linearizable only while no node's clock runs more than 4 % "
        "faster than another's, and only when every node has this setting.",
        group=_REQUESTS,
    )
    request_timeout_ms: int = setting(
        Unit.MILLISECONDS,
        5_000,
        "How long a request may wait for its outcome; a write that has none by then is "
        "answered 504 with outcome unknown.",
        between=(10, DAY_MS),
        group=_REQUESTS,
    )
    start_read_wait_ms: int = setting(
        Unit.MILLISECONDS,
        5_000,
        "How long after its start a node without a leader refuses local reads; after that "
        "it serves them and marks them X-Raftkv-Stale.",
        between=(0, DAY_MS),
        group=_REQUESTS,
    )

    tick_interval_ms: int = setting(
        Unit.MILLISECONDS, 25, "The grain of all consensus timers.", between=(1, 1_000), group=_TIMING
    )
    heartbeat_interval_ms: int = setting(
        Unit.MILLISECONDS,
        75,
        "How often the leader is heard when there is nothing to replicate.",
        between=(1, 60_000),
        group=_TIMING,
    )
    election_timeout_ms: int = setting(
        Unit.MILLISECONDS,
        400,
        "The least time without a leader before a node campaigns; each node draws its own between this and twice this.",
        between=(10, 600_000),
        group=_TIMING,
    )
    shutdown_timeout_ms: int = setting(
        Unit.MILLISECONDS,
        5_000,
        "How long a stopping node waits for open requests and for handing over leadership.",
        between=(0, DAY_MS),
        group=_TIMING,
    )

    max_key_bytes: int = setting(
        Unit.BYTES, 4 * KIB, "The longest key, as UTF-8.", between=(1, 64 * KIB), group=_LIMITS
    )
    max_value_bytes: int = setting(
        Unit.BYTES, MIB, "The longest value, as JSON text.", between=(1, 16 * MIB), group=_LIMITS
    )
    max_header_bytes: int = setting(
        Unit.BYTES, 16 * KIB, "The longest request line with headers.", between=(KIB, MIB), group=_LIMITS
    )
    max_connections: int = setting(
        Unit.COUNT,
        4096,
        "HTTP connections open at once; further ones are closed.",
        between=(1, 1_000_000),
        group=_LIMITS,
    )
    max_pending_bytes: int = setting(
        Unit.BYTES,
        64 * MIB,
        "Writes waiting to be committed; above it new ones are answered 503.",
        between=(MIB, 4 * GIB),
        group=_LIMITS,
    )
    idle_timeout_ms: int = setting(
        Unit.MILLISECONDS,
        75_000,
        "How long an HTTP connection may stay open without a request.",
        between=(100, DAY_MS),
        group=_LIMITS,
    )
    body_timeout_ms: int = setting(
        Unit.MILLISECONDS, 10_000, "How long a request may take to come in.", between=(100, DAY_MS), group=_LIMITS
    )

    segment_size_bytes: int = setting(
        Unit.BYTES, 64 * MIB, "The size of one file of the log.", between=(64 * KIB, GIB), group=_STORAGE
    )
    disk_reserve_bytes: int = setting(
        Unit.BYTES,
        256 * MIB,
        "Free space below which writes are refused; reads and deletes go on. At least segment_size_bytes + "
        "2 * write_buffer_bytes, which may be taken between two looks at the disk, or 0.",
        between=(0, 1 << 50),
        zero_is="no reserve",
        group=_STORAGE,
    )
    flush_interval_bytes: int = setting(
        Unit.BYTES,
        32 * MIB,
        "Log bytes applied between two flushes of the state; what a crash makes the next start replay.",
        between=(64 * KIB, 16 * GIB),
        group=_STORAGE,
    )
    log_retention_bytes: int = setting(
        Unit.BYTES,
        64 * MIB,
        "Log kept behind the flushed state for slow followers; one that lags further is sent a snapshot.",
        between=(0, 1 << 40),
        group=_STORAGE,
    )
    history_retention_count: int = setting(
        Unit.COUNT,
        1_000_000,
        "How many of the newest revisions stay readable; the leader has older values compacted. While the leader's "
        "disk is full (disk_reserve_bytes) nothing old is kept, unless this is 0.",
        between=(0, 1 << 50),
        zero_is="all of them",
        group=_STORAGE,
    )
    write_buffer_bytes: int = setting(
        Unit.BYTES, 32 * MIB, "RocksDB's memory for new data.", between=(MIB, 4 * GIB), group=_STORAGE
    )
    block_cache_bytes: int = setting(
        Unit.BYTES,
        32 * MIB,
        "RocksDB's memory for data read from disk. For more than 1 GiB of data, 3 % of it: what finds the data takes "
        "half of that, and reading it anew for every key would be slow.",
        between=(MIB, 1 << 40),
        group=_STORAGE,
    )
    snapshot_chunk_bytes: int = setting(
        Unit.BYTES, MIB, "The piece in which a snapshot is sent to a node.", between=(4 * KIB, 2 * MIB), group=_STORAGE
    )

    raft_tls_cert_file: Path | None = setting(
        Unit.PATH,
        None,
        "This node's certificate for the other nodes (PEM); all three raft_tls settings or none.",
        group=_SAFETY,
    )
    raft_tls_key_file: Path | None = setting(
        Unit.PATH, None, "The private key of raft_tls_cert_file (PEM).", group=_SAFETY
    )
    raft_tls_ca_file: Path | None = setting(
        Unit.PATH, None, "The authority that every node's certificate must be signed by (PEM).", group=_SAFETY
    )
    profiling: Profiling = setting(
        Unit.CHOICE,
        Profiling.AUTO,
        "Whether /debug/pprof/ answers; auto means only while the HTTP interface listens on loopback.",
        choices=Profiling,
        group=_SAFETY,
    )
    log_level: LogLevel = setting(
        Unit.CHOICE, LogLevel.INFO, "The least severe message that is logged.", choices=LogLevel, group=_SAFETY
    )
    log_format: LogFormat = setting(
        Unit.CHOICE, LogFormat.TEXT, "Lines for people, or one JSON object a line.", choices=LogFormat, group=_SAFETY
    )

    def __post_init__(self) -> None:
        for spec in SETTINGS.values():
            check_value(spec, getattr(self, spec.name))
        for name, problem in broken_rules(self):
            raise SettingsError(name, problem)

    @property
    def server_address(self) -> str:
        """Where clients are told to reach this node, `host:port`."""
        return self.advertise_server_address or join_address(self.server_host, self.server_port)

    @property
    def raft_address(self) -> str:
        """Where the other nodes are told to reach this node, `host:port`."""
        listed = next((member.raft_address for member in self.initial_cluster if member.node_id == self.node_id), "")
        return self.advertise_raft_address or listed or join_address(self.raft_host, self.raft_port)

    @property
    def is_profiling(self) -> bool:
        return self.profiling == Profiling.ON or (self.profiling == Profiling.AUTO and is_loopback(self.server_host))


def _specs() -> dict[str, SettingSpec]:
    table = {}
    for field in dataclasses.fields(Settings):
        row = dict(field.metadata)
        row["environment"] = row["environment"] or "RAFTKV_" + field.name.upper()
        default = None if row["is_required"] else field.default
        table[field.name] = SettingSpec(name=field.name, default=default, **row)
    return table


SETTINGS: dict[str, SettingSpec] = _specs()
"""The table by name, in the order of the reference."""
