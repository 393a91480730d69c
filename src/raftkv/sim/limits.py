"""Bounds that a leader has to keep: they are what a slow follower or a busy client may cost (Thesis §10.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raftkv.raft import AppendEntries

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode


def check_window(node: SimNode, message: AppendEntries, must: Callable[[object, str], None]) -> None:
    """`message` has entries, and leaves now. One entry alone may exceed each limit of bytes."""
    state = node.replica.raft._state
    leading, settings = state.leading, state.settings
    size_bytes = sum(len(entry.data) for entry in message.entries)
    is_small = len(message.entries) == 1 or size_bytes <= settings.append_max_bytes
    must(is_small, f"{node.node_id} sends {size_bytes} bytes at once, the limit is {settings.append_max_bytes}")
    if leading is None or state.current_term != message.term:
        return
    is_bounded = len(leading.proposals) <= 1 or leading.uncommitted_bytes <= settings.uncommitted_max_bytes
    must(is_bounded, f"{node.node_id} took {leading.uncommitted_bytes} bytes that are not committed")
    peer = leading.peers.get(message.recipient)
    if peer is None or not peer.inflight:
        return
    before_last = peer.inflight_bytes - peer.inflight[-1][1]
    is_within = len(peer.inflight) <= settings.inflight_max_count and before_last < settings.inflight_max_bytes
    must(is_within, f"{node.node_id} has {len(peer.inflight)} messages of {peer.inflight_bytes} bytes in flight")
