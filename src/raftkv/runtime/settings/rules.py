"""What must hold between settings, each with the setting to blame and a text that says what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.runtime.addresses import is_wildcard
from raftkv.types import Consistency

if TYPE_CHECKING:
    from raftkv.runtime.settings.fields import Settings

_REQUEST_LINE_ROOM_BYTES = 1024


def broken_rules(settings: Settings) -> list[tuple[str, str]]:
    """The rules between settings that do not hold, as (name of the setting to blame, what is wrong)."""
    s = settings
    least_reserve_bytes = s.segment_size_bytes + 2 * s.write_buffer_bytes
    rules: list[tuple[object, str, str]] = [
        (
            s.heartbeat_interval_ms >= s.tick_interval_ms,
            "heartbeat_interval_ms",
            f"{s.heartbeat_interval_ms} is below tick_interval_ms ({s.tick_interval_ms})",
        ),
        # Raft §5.6: a follower must hear several heartbeats within one election timeout, or healthy leaders fall.
        (
            s.election_timeout_ms >= 2 * s.heartbeat_interval_ms,
            "election_timeout_ms",
            f"{s.election_timeout_ms} is below twice heartbeat_interval_ms ({s.heartbeat_interval_ms})",
        ),
        (
            s.election_timeout_ms >= 4 * s.tick_interval_ms,
            "election_timeout_ms",
            f"{s.election_timeout_ms} is below four times tick_interval_ms ({s.tick_interval_ms})",
        ),
        # A key is up to three times as long in a percent-encoded path.
        (
            s.max_header_bytes >= 3 * s.max_key_bytes + _REQUEST_LINE_ROOM_BYTES,
            "max_header_bytes",
            f"{s.max_header_bytes} is below 3 * max_key_bytes + {_REQUEST_LINE_ROOM_BYTES} (a percent-encoded key)",
        ),
        (
            s.max_pending_bytes >= s.max_key_bytes + s.max_value_bytes,
            "max_pending_bytes",
            f"{s.max_pending_bytes} is below one write of max_key_bytes + max_value_bytes",
        ),
        # The disk is looked at once a second. Until the next look the log may make a file ahead of use, and RocksDB may
        # write out a full buffer and the one that fills meanwhile.
        (
            s.disk_reserve_bytes == 0 or s.disk_reserve_bytes >= least_reserve_bytes,
            "disk_reserve_bytes",
            f"{s.disk_reserve_bytes} is below segment_size_bytes + 2 * write_buffer_bytes ({least_reserve_bytes})",
        ),
        (
            s.lease_reads or s.read_consistency != Consistency.LEASE,
            "read_consistency",
            "lease needs lease_reads",
        ),
    ]
    rules += _address_rules(s)
    rules += _cluster_rules(s)
    tls = {name: getattr(s, name) for name in ("raft_tls_cert_file", "raft_tls_key_file", "raft_tls_ca_file")}
    if any(tls.values()):
        rules += [(file, name, "must be given too: all three raft_tls files or none") for name, file in tls.items()]
    return [(name, problem) for holds, name, problem in rules if not holds]


def _address_rules(s: Settings) -> list[tuple[object, str, str]]:
    own = dict(s.initial_cluster).get(s.node_id, "")
    return [
        (
            not is_wildcard(s.server_host) or s.advertise_server_address,
            "advertise_server_address",
            f"must be given because server_host is {s.server_host}, which nobody can connect to",
        ),
        (
            not is_wildcard(s.raft_host) or s.advertise_raft_address or own,
            "advertise_raft_address",
            f"must be given because raft_host is {s.raft_host}, which nobody can connect to",
        ),
        (
            not own or s.advertise_raft_address in {"", own},
            "advertise_raft_address",
            f"is {s.advertise_raft_address}, but initial_cluster says {own}",
        ),
        # The address goes to the other nodes before a port is bound.
        (s.server_port or s.advertise_server_address, "server_port", "0 needs advertise_server_address"),
        (
            s.raft_port or s.advertise_raft_address or own,
            "raft_port",
            "0 needs advertise_raft_address, or initial_cluster",
        ),
        (
            s.server_port == 0 or (s.server_host, s.server_port) != (s.raft_host, s.raft_port),
            "raft_port",
            f"{s.raft_port} is the server_port too",
        ),
    ]


def _cluster_rules(s: Settings) -> list[tuple[object, str, str]]:
    node_ids = [member.node_id for member in s.initial_cluster]
    addresses = [member.raft_address for member in s.initial_cluster]
    return [
        (not (s.initial_cluster and s.join), "join", "cannot be used together with initial_cluster"),
        (len(set(node_ids)) == len(node_ids), "initial_cluster", "names a node twice"),
        (len(set(addresses)) == len(addresses), "initial_cluster", "lists an address twice"),
        (not node_ids or s.node_id in node_ids, "initial_cluster", f"does not list this node, {s.node_id}"),
    ]
