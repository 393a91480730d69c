"""What the node's settings mean for the parts of a replica, in the units of those."""

from __future__ import annotations

from raftkv.raft import RaftSettings
from raftkv.runtime.clients.codec import COMMAND_OVERHEAD_BYTES
from raftkv.runtime.clients.forwarding import BATCH_MAX_BYTES
from raftkv.runtime.settings import Settings
from raftkv.types import MemberId


def largest_command_bytes(settings: Settings) -> int:
    return settings.max_value_bytes + settings.max_key_bytes + COMMAND_OVERHEAD_BYTES


def largest_forward_bytes(settings: Settings) -> int:
    """Of one forwarded batch: many small commands, or a single large one; with room for what `command_bytes` rounds."""
    return max(BATCH_MAX_BYTES, largest_command_bytes(settings)) + BATCH_MAX_BYTES // 8


def raft_settings(settings: Settings, member_id: MemberId) -> RaftSettings:
    """The core's knobs in ticks, from the node's in milliseconds."""
    tick_ms = settings.tick_interval_ms
    election_ticks = max(3, -(-settings.election_timeout_ms // tick_ms))
    return RaftSettings(
        member_id=member_id,
        election_timeout_ticks=election_ticks,
        heartbeat_ticks=max(1, min(election_ticks - 1, settings.heartbeat_interval_ms // tick_ms)),
        lease_reads=settings.lease_reads,
        # One tick is for rounding, the rest for clocks that run apart: at least 1 of 23, so 4 % of the timeout.
        lease_margin_ticks=max(2, election_ticks // 8),
        committed_max_bytes=256 * 1024,
        announces_commits=False,
    )
