"""What a run may set otherwise than a server would: small limits, so that they are met; and plans that do so.

With the server's own limits a simulated minute never fills a window, a message or more than a segment or two of the
log. `varied_plan` gives each seed one of several kinds of run, each hard on another part.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftkv.raft import RaftState


@dataclasses.dataclass(frozen=True)
class Tuning:
    """0 leaves what the server has. The first seven are the core's (`RaftSettings`)."""

    append_max_bytes: int = 0
    inflight_max_count: int = 0
    inflight_max_bytes: int = 0
    uncommitted_max_bytes: int = 0
    committed_max_bytes: int = 0
    tail_max_bytes: int = 0
    lease_margin_ticks: int = 0
    segment_size_bytes: int = 16 << 10
    log_retention_bytes: int = 20_000
    history_retention_count: int = 50

    def apply(self, state: RaftState) -> None:
        """Before the core has done anything."""
        names = [field.name for field in dataclasses.fields(state.settings)]
        changes: dict[str, Any] = {name: value for name in names if (value := getattr(self, name, 0))}
        if changes:
            state.settings = dataclasses.replace(state.settings, **changes)
            state.log._tail_max_bytes = state.settings.tail_max_bytes


DEFAULT_TUNING = Tuning()

_LINKS = frozenset({
    "isolate-leader", "restart", "slow-disk", "partition", "deaf", "mute", "broken-link", "storm", "pause", "transfer",
})  # fmt: skip
_MEMBERS = frozenset({
    "isolate-leader", "kill-leader", "join", "remove", "wipe", "transfer", "partition", "broken-link", "kill",
    "power-cut", "upkeep", "remove-leader", "demote",
})  # fmt: skip
_ELECTIONS = frozenset({
    "isolate-leader", "kill-leader", "kill", "kill-all", "power-cut", "power-cut-all", "partition", "storm",
    "slow-disk", "slow-leader-disk", "restart", "transfer", "demote",
})  # fmt: skip
_DISKS = frozenset({
    "power-cut", "power-cut-all", "power-cut-in-write", "kill", "kill-all", "slow-disk", "failed-sync", "upkeep",
    "rolling-restart", "partition", "storm",
})  # fmt: skip


def busy(_source: random.Random) -> dict[str, object]:
    """Many clients on few nodes: batches, a full pipeline, much that is under way when something happens."""
    return {"node_count": 3, "duration_s": 20.0, "client_count": 12, "think_s": 0.05, "local_share": 0.2}


def narrow(source: random.Random) -> dict[str, object]:
    """Every window and message is small, and values are large: many messages for one log, many segments."""
    tuning = Tuning(
        append_max_bytes=source.choice((200, 1000)),
        inflight_max_count=source.choice((1, 2, 4)),
        inflight_max_bytes=source.choice((300, 3000)),
        uncommitted_max_bytes=source.choice((500, 5000)),
        committed_max_bytes=source.choice((200, 1000)),
        tail_max_bytes=source.choice((1, 1000, 4000)),
        segment_size_bytes=4096,
        log_retention_bytes=source.choice((0, 3000, 10_000)),
        history_retention_count=20,
    )
    return {
        "duration_s": 30.0, "client_count": 8, "think_s": 0.1, "value_max_bytes": 600, "local_share": 0.1,
        "tuning": tuning,
    }  # fmt: skip


def leases(source: random.Random) -> dict[str, object]:
    """Reads everywhere all the time while leadership moves: the moment between two leaders is looked at."""
    return {
        "node_count": source.choice((3, 5)), "spare_count": 0, "duration_s": 25.0, "client_count": 8, "think_s": 0.05,
        "lease_share": 0.7, "kinds": _LINKS,
    }  # fmt: skip


def members(source: random.Random) -> dict[str, object]:
    """Members come and go while links and nodes fail."""
    return {
        "node_count": source.choice((2, 3, 4)), "spare_count": 2, "duration_s": 50.0, "client_count": 4,
        "think_s": 0.2, "local_share": 0.1, "kinds": _MEMBERS,
    }  # fmt: skip


def disks(source: random.Random) -> dict[str, object]:
    """Power goes, in the middle of everything, and the log is many small segments."""
    tuning = Tuning(segment_size_bytes=4096, log_retention_bytes=source.choice((0, 5000)))
    return {
        "node_count": source.choice((1, 3, 3)), "spare_count": 0, "duration_s": 25.0, "client_count": 8,
        "think_s": 0.05, "value_max_bytes": source.choice((0, 900)), "local_share": 0.2, "kinds": _DISKS,
        "tuning": tuning,
    }  # fmt: skip


def elections(source: random.Random) -> dict[str, object]:
    """Leaders are cut off with work in their hands, come back to another one, and fall again."""
    return {
        "node_count": source.choice((3, 4, 5)), "spare_count": 0, "duration_s": 40.0, "client_count": 12,
        "think_s": 0.05, "kinds": _ELECTIONS,
    }  # fmt: skip


VARIANTS: tuple[Callable[[random.Random], dict[str, object]] | None, ...] = (
    None, busy, narrow, leases, members, disks, elections,
)  # fmt: skip
"""None is the plan as it is."""


def variant_of(seed: int) -> dict[str, object]:
    """What is to be changed in a plan with this seed."""
    variant = VARIANTS[seed % len(VARIANTS)]
    return variant(random.Random(f"{seed}/variant")) if variant is not None else {}
