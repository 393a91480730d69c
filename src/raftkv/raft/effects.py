"""What the core asks of the world. The contract between the core and whoever drives it is here, once.

The driver's whole duty
-----------------------
1. Give inputs one at a time, from one thread: `tick`, `step`, `propose`, `propose_configuration`,
   `request_read`, `announce_commit`, `transfer_leadership`, and the reports `persisted`, `applied`, `unreachable`,
   `snapshot_sent`, `compacted`. Several inputs may be given before the next `ready`.
2. Call `ready()`; it hands out everything new exactly once. Carry out each `Effects` in the order given:
   a. Hand `snapshot`, `hard_state` and `entries` to the log in this order, as one step `ticket`. Steps reach
      the disk in the order of their tickets. If `entries[0].index` is not beyond the log's last index,
      the log's suffix from there on is truncated first.
   b. Send `messages` at any time, even before (a) is durable: they claim nothing about this step.
   c. Send `messages_after_persist` only when step `ticket` is durable (Raft figure 2: "updated on stable
      storage before responding to RPCs"), then report `persisted(ticket)`. With `ticket` 0 there is
      nothing to persist and that list is empty.
   d. Apply `committed` in order, then report `applied(index)`. They are already durable here.
   e. Answer `reads` once the state machine has applied at least `read_index`; refuse `refused_reads`.
   f. Stream a snapshot to each of `snapshots_to_send` and report `snapshot_sent(member_id, ok)`.
3. Losing, delaying, duplicating or reordering messages is always safe; doing (c) before its `ticket` is not.
4. When persisting fails, stop: neither report nor retry (design: one failed sync poisons the node).

The leader's own log write runs in parallel with replication (Thesis §10.2.1): `AppendEntries` are in
`messages`, and the leader counts itself only after `persisted`.
"""

from __future__ import annotations

import dataclasses

from raftkv.raft.messages import Message
from raftkv.types import Configuration, Entry, HardState, MemberId, Role, SnapshotMetadata


@dataclasses.dataclass(frozen=True, slots=True)
class ConfirmedRead:
    """The read `request_id` may be answered by any state that has applied `read_index` (Thesis §6.4)."""

    request_id: int
    read_index: int


@dataclasses.dataclass(frozen=True, slots=True)
class Leadership:
    """Told when any of it changes."""

    role: Role
    current_term: int
    leader: MemberId
    cause: str = ""
    """Why the role is what it is, in words for people."""


@dataclasses.dataclass(slots=True)
class Effects:
    """One step's outputs; see the module for what must be done with them. Empty lists mean nothing to do."""

    ticket: int = 0
    snapshot: SnapshotMetadata | None = None
    hard_state: HardState | None = None
    entries: list[Entry] = dataclasses.field(default_factory=list)
    messages: list[Message] = dataclasses.field(default_factory=list)
    messages_after_persist: list[Message] = dataclasses.field(default_factory=list)
    committed: list[Entry] = dataclasses.field(default_factory=list)
    reads: list[ConfirmedRead] = dataclasses.field(default_factory=list)
    refused_reads: list[int] = dataclasses.field(default_factory=list)
    snapshots_to_send: list[MemberId] = dataclasses.field(default_factory=list)
    leadership: Leadership | None = None
    configuration: Configuration | None = None
    """Set when the configuration in force changed (appended, truncated, restored): who to connect to."""
