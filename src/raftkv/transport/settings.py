"""The transport's knobs. Every queue, count and wait on the peer port has a bound, and all of them are here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from raftkv.errors import SettingsError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for mutual TLS: this node's certificate chain and key, and the authority that signs every node's."""

    cert_file: Path
    key_file: Path
    ca_file: Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """Sizes in bytes, times in milliseconds; all positive.

    max_frame_bytes: the largest payload of one frame from an accepted peer; `send` refuses larger ones.
    max_queue_bytes: frames waiting for one peer (in our queue and the loop's write buffer); beyond it `send` drops.
    dial_timeout_ms: connecting, TLS and handshake together, at the dialer.
    handshake_timeout_ms: TLS and handshake together, at the listener.
    backoff_min_ms, backoff_max_ms: the wait between dials grows from one to the other, with jitter.
    write_stall_timeout_ms: a connection whose write buffer is full and does not move for so long is dropped.
    max_handshakes: connections that have not said a valid hello; one more drops the oldest of them.
    max_inbound_peers, max_calls: accepted connections of strangers, and calls; one more is refused with a reason.
    max_call_bytes: the payload of a call or of its reply.
    snapshot_window_chunks: chunks sent ahead of the receiver's consumer; bounds the memory at both ends.
    max_snapshot_chunk_bytes: the largest chunk.
    snapshot_stall_timeout_ms: the longest wait for the next chunk, or for the receiver to take one.
    snapshot_accept_timeout_ms: the longest wait for the verdict after the last chunk (verifying, syncing to disk).
    """

    max_frame_bytes: int = 32 << 20
    max_queue_bytes: int = 64 << 20
    dial_timeout_ms: int = 2_000
    handshake_timeout_ms: int = 5_000
    backoff_min_ms: int = 50
    backoff_max_ms: int = 1_000
    write_stall_timeout_ms: int = 5_000
    max_handshakes: int = 64
    max_inbound_peers: int = 64
    max_calls: int = 64
    max_call_bytes: int = 1 << 20
    snapshot_window_chunks: int = 4
    max_snapshot_chunk_bytes: int = 4 << 20
    snapshot_stall_timeout_ms: int = 10_000
    snapshot_accept_timeout_ms: int = 120_000
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "tls" and getattr(self, field.name) <= 0:
                raise SettingsError(field.name, "must be positive")
        if self.backoff_min_ms > self.backoff_max_ms:
            raise SettingsError("backoff_min_ms", "must not exceed backoff_max_ms")
