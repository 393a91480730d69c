"""The transport room: frames, calls and snapshots between nodes.

It must never interpret what it carries (Raft messages are opaque bytes here), never block the loop, never
buffer without bound, and never let one bad connection touch another. It may use only `types` and `errors`.
"""

from raftkv.transport.address import parse_address
from raftkv.transport.contract import PeerIdentity, PeerTransport, TransportHandler
from raftkv.transport.memory import MemoryNetwork, MemoryTransport
from raftkv.transport.settings import TlsFiles, TransportSettings
from raftkv.transport.stats import PeerStats, Traffic, TransportStats
from raftkv.transport.tcp import Transport

__all__ = [
    "MemoryNetwork",
    "MemoryTransport",
    "PeerIdentity",
    "PeerStats",
    "PeerTransport",
    "TlsFiles",
    "Traffic",
    "Transport",
    "TransportHandler",
    "TransportSettings",
    "TransportStats",
    "parse_address",
]
